//! Flags and defaults into one checked Config.
