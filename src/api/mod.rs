//! L3, pure: `$JS.API` requests and responses as values. Must not know streams' state or tasks.
