//! L2, pure: who wants this subject. Owns the subscription trie; must not know what a subscriber is.
