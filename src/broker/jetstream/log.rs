//! Where a stream's messages are: rows in the store, or in memory for streams with memory storage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::{ReadError, Store};
use crate::types::StoredMessage;
use crate::types::StreamId;

/// Where to read a stream's messages. Cheap to clone.
#[derive(Clone)]
pub(super) enum Log {
    Disk { store: Store, id: StreamId },
    Memory(Arc<MemoryLog>),
}

/// The messages of a memory stream. It outlives the stream's task, so that a panic there loses nothing.
#[derive(Default)]
pub(super) struct MemoryLog {
    messages: Mutex<BTreeMap<u64, StoredMessage>>,
}

impl MemoryLog {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, StoredMessage>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// One message; `None` when it is not there.
    pub(super) fn read(&self, seq: u64) -> Result<Option<StoredMessage>, ReadError> {
        match self {
            Log::Disk { store, id } => store.read(*id, seq),
            Log::Memory(log) => Ok(log.lock().get(&seq).cloned()),
        }
    }

    /// Up to `messages_max` messages from `from` on, ascending, ending after the one that reaches `bytes_max`.
    pub(super) fn read_range(
        &self,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        match self {
            Log::Disk { store, id } => store.read_range(*id, from, messages_max, bytes_max),
            Log::Memory(log) => {
                let log = log.lock();
                let mut bytes = 0;
                let mut found = Vec::new();
                for message in log.range(from..).map(|(_, message)| message).take(messages_max) {
                    found.push(message.clone());
                    bytes += message.message.as_bytes().len();
                    if bytes >= bytes_max {
                        break;
                    }
                }
                Ok(found)
            }
        }
    }
}
