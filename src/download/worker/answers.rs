//! What a worker makes of an answer, and of none.

use std::time::Instant;

use super::{GiveUp, ReasonKind, SILENCE, Sent, Worker, WorkerReport};
use crate::download::plan::Failure;
use crate::download::reason::Reason;
use crate::wire::peer::{ResponseHeader, Status};

impl Worker<'_> {
    /// Decides what the body of a response is.
    pub(super) fn header(&mut self, header: ResponseHeader) -> Result<(), GiveUp> {
        let Some(sent) = self.sent.front().copied() else {
            return Ok(());
        };
        let block = sent.order.block;
        if let Some(since) = sent.alone_since {
            let now = Instant::now();
            self.meter
                .answered(now.saturating_duration_since(since), now);
        }
        if !self.fetched && self.is_plausible(header, sent) {
            self.unanswered = None;
            self.report(WorkerReport::Began)?;
        }
        match header.status {
            Status::Success | Status::NotPresent if sent.extended => self.lacks_extension()?,
            Status::BadRequest => return self.bad_request(sent),
            _ => {}
        }
        let Some(connection) = self.connection.as_mut() else {
            return Ok(());
        };
        connection.announced = Some(header.length);
        match header.status {
            Status::Success => {
                let length = self.to.cascade.geometry().block_length(block);
                if header.length != length {
                    return Err(GiveUp::lied(ReasonKind::WrongLength, block));
                }
                let block = self.landing.begin(block, length)?;
                connection.incoming.expect_block(block);
            }
            Status::NotPresent if header.length <= crate::wire::MAX_MESSAGE => {
                connection.incoming.expect_message(header.length);
            }
            Status::NotPresent => {
                return Err(GiveUp::lied(ReasonKind::WrongLength, block));
            }
            Status::Map if sent.extended => {
                let map_length = self.to.map.map_length() as u64;
                if header.length != 0 && header.length != map_length {
                    return Err(GiveUp::lied(ReasonKind::WrongLength, block));
                }
                self.habits.set_extended(true);
                connection.incoming.expect_map(header.length as usize);
            }
            Status::UnknownHash => {
                return Err(GiveUp(
                    Failure::UnknownHash,
                    Reason::new(ReasonKind::UnknownHash, 0),
                ));
            }
            _ => return Err(GiveUp::wrong_status(block, header.status)),
        }
        Ok(())
    }

    /// Whether only a peer of this network sends such a header.
    fn is_plausible(&self, header: ResponseHeader, sent: Sent) -> bool {
        let length = header.length;
        match header.status {
            Status::Success => {
                let geometry = self.to.cascade.geometry();
                length == geometry.block_length(sent.order.block)
            }
            Status::Map => sent.extended && [0, self.to.map.map_length() as u64].contains(&length),
            Status::UnknownHash | Status::NotPresent | Status::NoSuchBlock | Status::BadRequest => {
                length <= crate::wire::MAX_MESSAGE
            }
            _ => false,
        }
    }

    /// Status 4. After a request for the map it means that the peer does not know the extension; after requests that
    /// were sent ahead, that it read them as one; on a connection that was used before, that it saw an end where
    /// there was none. Only on a fresh connection and alone is it senseless.
    fn bad_request(&mut self, sent: Sent) -> Result<(), GiveUp> {
        if sent.extended {
            self.lacks_extension()?;
        } else {
            let responses = self
                .connection
                .as_ref()
                .map_or(0, |connection| connection.responses);
            if self.sent.len() == 1 && responses == 0 {
                return Err(GiveUp::wrong_status(sent.order.block, Status::BadRequest));
            }
            self.habits.closed(responses, self.sent.len() as u32);
            self.habits.one_at_a_time();
        }
        self.start_over();
        Ok(())
    }

    fn lacks_extension(&mut self) -> Result<(), GiveUp> {
        self.habits.set_extended(false);
        if let Some(sent) = self.sent.front_mut() {
            sent.extended = false;
            sent.order.map = false;
        }
        self.report(WorkerReport::NoMap)
    }

    /// The peer closed the connection: by habit, for want of the extension, or because something is wrong with it.
    pub(super) fn connection_ended(&mut self, within_response: bool) -> Result<(), GiveUp> {
        let responses = self
            .connection
            .as_ref()
            .map_or(0, |connection| connection.responses);
        let outstanding = self.sent.len() as u32;
        let asked_for_map = self.sent.front().is_some_and(|sent| sent.extended);
        if asked_for_map && responses == 0 && !within_response {
            self.lacks_extension()?;
            self.start_over();
            return Ok(());
        }
        // A response that is cut off is the fault of requests sent ahead, or the peer's.
        let counted = if within_response && outstanding <= 1 {
            0
        } else {
            responses
        };
        if !self.habits.closed(counted, outstanding) {
            return Err(GiveUp(Failure::Silent, Reason::new(ReasonKind::Closes, 0)));
        }
        self.start_over();
        Ok(())
    }

    /// Forgets the connection; what was not answered will be sent again.
    fn start_over(&mut self) {
        self.connection = None;
        self.unsent.clear();
        for sent in self.sent.drain(..).rev() {
            self.waiting.push_front(sent.order);
        }
    }
    /// A peer that read several requests at once may have lost all but the first: it gets another chance, with one
    /// request at a time.
    pub(super) fn silent(&mut self) -> Result<(), GiveUp> {
        if self.sent.len() > 1 && !self.habits.is_one_at_a_time() {
            self.habits.one_at_a_time();
            self.start_over();
            return Ok(());
        }
        Err(GiveUp(
            Failure::Silent,
            Reason::new(ReasonKind::Silent, SILENCE.as_secs() as u32),
        ))
    }

    /// A peer that loses requests which were sent ahead answers a later one than it owes. That is no lie: it gets one
    /// request at a time from now on. A block that nobody asked for is a lie.
    pub(super) fn forgive(&mut self, error: GiveUp) -> Result<(), GiveUp> {
        let GiveUp(Failure::Lied, reason) = &error else {
            return Err(error);
        };
        let Some(connection) = self.connection.as_ref() else {
            return Err(error);
        };
        let later = || self.sent.iter().skip(1).map(|sent| sent.order.block);
        let is_a_later_one = match reason.kind {
            ReasonKind::WrongBlock => connection.incoming.mismatch().is_some_and(|hash| {
                later()
                    .any(|block| self.to.cascade.block_hashes().get(block as usize) == Some(&hash))
            }),
            ReasonKind::WrongLength => connection.announced.is_some_and(|length| {
                later().any(|block| self.to.cascade.geometry().block_length(block) == length)
            }),
            _ => false,
        };
        if !is_a_later_one {
            return Err(error);
        }
        self.habits.one_at_a_time();
        self.start_over();
        Ok(())
    }
}
