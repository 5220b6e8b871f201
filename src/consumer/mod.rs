//! L2, pure: one delivery cursor over a stream. Must not know disks, tasks or clocks.
