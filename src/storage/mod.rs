//! L3: the redb file. Owns rows, the committer thread and recovery; must not know clients.
