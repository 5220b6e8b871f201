//! L2, pure: the log's rules. Owns sequences, limits, dedup and the subject index; must not know disks, tasks or clocks.
