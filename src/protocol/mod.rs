//! L1, pure: bytes to operations and back. Owns the wire grammar; must not know who is connected or what is stored.
