//! L5: HTTP monitoring endpoints.
