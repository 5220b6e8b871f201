//! What must be looked at when a message is delivered to a client with restricted permissions. Others have no guard.

use std::sync::{Arc, Mutex, PoisonError};

use super::courier::Parcel;
use crate::auth::{Permit, Responses};
use crate::types::Timestamp;

/// One login's guard, shared by its subscriptions.
pub struct Guard {
    permit: Arc<Permit>,
    responses: Option<Mutex<Responses>>,
}

impl Guard {
    /// `None` when deliveries need not be looked at.
    pub(super) fn new(permit: Option<&Arc<Permit>>) -> Option<Arc<Guard>> {
        let permit = permit.filter(|permit| permit.restricts_receive() || permit.responses().is_some())?;
        let responses = permit.responses().map(|limits| Mutex::new(Responses::new(limits)));
        Some(Arc::new(Guard { permit: permit.clone(), responses }))
    }

    /// Whether the client may have the message. A stored message that comes to an inbox, from a consumer or as an answer, is
    /// judged by its own subject as well: what is denied is not to be had by a detour.
    pub(super) fn may_receive(&self, parcel: &Parcel<'_>, queue: Option<&[u8]>) -> bool {
        let also = |subject: &[u8]| subject == parcel.to || self.permit.may_receive(subject, queue);
        self.permit.may_receive(parcel.to, queue)
            && also(parcel.shown_subject)
            && (parcel.stored_subject.is_empty()
                || parcel.stored_subject == parcel.shown_subject
                || also(parcel.stored_subject))
    }

    /// The client is about to receive a message with this reply subject.
    pub(super) fn note_reply(&self, reply: &[u8]) {
        if let Some(responses) = &self.responses
            && !reply.is_empty()
        {
            responses.lock().unwrap_or_else(PoisonError::into_inner).note(reply, Timestamp::now());
        }
    }

    /// Whether the client may publish on `subject` because it was asked to answer there; counts the answer.
    pub(super) fn may_answer(&self, subject: &[u8]) -> bool {
        let Some(responses) = &self.responses else { return false };
        responses.lock().unwrap_or_else(PoisonError::into_inner).take(subject, Timestamp::now())
    }
}
