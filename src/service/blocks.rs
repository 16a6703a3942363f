//! The server side of the peer protocol: blocks of files, from open descriptors. PROTOCOL §3, §4, §5.

pub mod on_demand;
pub mod read_errors;

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use read_errors::{ReadError, ReadErrors};
use smallvec::SmallVec;

use super::{Next, Outcome, Output, Reports, Service, Session};
use crate::cascade_file::Geometry;
use crate::hash::{CascadeHash, HASH_LEN};
use crate::store::bitmap::Bitmap;
use crate::store::stamp::Stamp;
use crate::sys::record::Record;
use crate::sys::shared::Shared;
use crate::wire::peer::{self, Extension, Request, RequestError, ResponseHeader, Status};

/// A served file, as far as its blocks are verified.
#[derive(Debug, Clone)]
pub struct ServedFile {
    /// Tells it from another copy of the same file.
    pub id: u64,
    /// The cascade hash, its name on the network.
    pub hash: CascadeHash,
    /// Where the blocks lie.
    pub geometry: Geometry,
    /// The data file, open for reading.
    pub data: Arc<File>,
    /// The cascade file, open for reading, and its length.
    pub meta: (Arc<File>, u64),
    /// Which blocks are verified; shared with the processes that verify and download.
    pub present: Arc<Bitmap>,
    /// Whether the data file is still what was verified.
    pub stamp: Arc<Stamp>,
    /// An observer of its growth, if there is one.
    pub onlookers: Option<Arc<Onlookers>>,
}

/// Counts in shared memory how often others were told which blocks of an incomplete file are present.
#[derive(Debug)]
pub struct Onlookers {
    maps: Shared<AtomicU64>,
}

impl Onlookers {
    /// Nobody so far.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new() -> std::io::Result<Self> {
        let maps = Shared::new(1)?;
        Ok(Self { maps })
    }

    /// How often it was.
    pub fn count(&self) -> u64 {
        self.maps[0].load(Ordering::Relaxed)
    }

    fn look(&self) {
        self.maps[0].fetch_add(1, Ordering::Relaxed);
    }
}

/// A block that was sent, in the sense that the kernel has accepted all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Of which file.
    pub hash: CascadeHash,
    /// Which block.
    pub block: u32,
}

impl Record for Sent {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.hash.0);
        bytes.extend_from_slice(&self.block.to_ne_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (hash, block) = bytes.split_first_chunk::<HASH_LEN>()?;
        let block = u32::from_ne_bytes(block.try_into().ok()?);
        let hash = CascadeHash(*hash);
        Some(Self { hash, block })
    }
}

impl ServedFile {
    /// Whether a block may be sent: it is verified, and the file has been neither truncated nor changed since.
    fn holds(&self, block: u32) -> bool {
        let Some(range) = self.geometry.range(block) else {
            return false;
        };
        let unchanged =
            |metadata: Metadata| metadata.len() >= range.end && self.stamp.fits(&metadata);
        self.present.get(block) && self.data.metadata().is_ok_and(unchanged)
    }
}

impl ServedFile {
    /// How many blocks would be sent.
    fn blocks_held(&self) -> u32 {
        match self.data.metadata() {
            Ok(metadata) if self.stamp.fits(&metadata) => self.present.count(),
            _ => 0,
        }
    }

    /// The map of the blocks that would be sent; empty if that is all of them.
    fn map(&self) -> Vec<u8> {
        let (length, whole) = (self.geometry.length(), self.present.is_full());
        match self.data.metadata() {
            Ok(metadata) if !self.stamp.fits(&metadata) => vec![0; self.present.map_length()],
            Ok(metadata) if metadata.len() >= length && whole => Vec::new(),
            Ok(metadata) => {
                // Blocks beyond the end of a file that was cut are not sent.
                let mut map = self.present.to_bytes();
                let there =
                    u32::try_from(metadata.len() / self.geometry.block_size()).unwrap_or(u32::MAX);
                if metadata.len() < length {
                    (there..self.geometry.blocks())
                        .for_each(|block| map[block as usize / 8] &= !(0x80 >> (block % 8)));
                }
                map
            }
            Err(_) => vec![0; self.present.map_length()],
        }
    }
}

/// Files by cascade hash; of each the copies that are here.
type Files = HashMap<CascadeHash, Copies>;
/// Mostly there is one; one of several may have blocks that another lacks.
type Copies = SmallVec<[ServedFile; 1]>;

/// Serves the blocks of a set of files.
pub struct BlocksService<'a> {
    /// The state that new sessions start from. Only the owner of the state writes it.
    files: RwLock<Arc<Files>>,
    /// Where changes of the set of files come from.
    news: Option<&'a dyn News>,
    /// Where blocks are verified only when they are asked for: what they must be.
    hashes: Option<Arc<on_demand::Hashes>>,
    /// Where it is noted that a block cannot be read.
    read_errors: Option<Arc<ReadErrors>>,
}

/// A source of changes.
pub trait News: Sync {
    /// Takes the changes that have arrived.
    fn take(&self) -> Vec<Change>;
}

/// A change of the set of files.
#[derive(Debug, Clone)]
pub enum Change {
    /// A file was added; it replaces one with the same hash and id.
    Serve(ServedFile),
    /// A file was removed: its hash, and its id.
    Forget(CascadeHash, u64),
}

impl<'a> BlocksService<'a> {
    /// Serves these files.
    pub fn new(files: impl IntoIterator<Item = ServedFile>) -> Self {
        let mut of_hash = Files::new();
        for file in files {
            of_hash.entry(file.hash).or_default().push(file);
        }
        Self {
            files: RwLock::new(Arc::new(of_hash)),
            news: None,
            hashes: None,
            read_errors: None,
        }
    }

    /// Notes there which blocks cannot be read.
    pub fn noting(self, read_errors: Arc<ReadErrors>) -> Self {
        Self {
            read_errors: Some(read_errors),
            ..self
        }
    }

    /// Verifies each block when it is first requested, for files that nobody has verified. A client that asks which
    /// blocks are present is not told, but gets any block that it requests.
    pub fn verifying(self, hashes: on_demand::Hashes) -> Self {
        Self {
            hashes: Some(Arc::new(hashes)),
            ..self
        }
    }

    /// Takes changes from this source when the service is told to reload.
    pub fn with_news(self, news: &'a dyn News) -> Self {
        Self {
            news: Some(news),
            ..self
        }
    }

    fn files(&self) -> Arc<Files> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&files)
    }

    /// A session that reports each block that was sent.
    pub fn session_that_reports(&self) -> BlocksSession {
        self.session(Some(Vec::new()))
    }

    fn session(&self, sent: Option<Vec<Sent>>) -> BlocksSession {
        BlocksSession {
            files: self.files(),
            input: Vec::new(),
            sent,
            hashes: self.hashes.clone(),
            read_errors: self.read_errors.clone(),
        }
    }
}

impl Service for BlocksService<'_> {
    type Session = BlocksSession;
    const REPORTS: Reports = Reports::Never;

    fn open(&self, _remote: SocketAddr, _now: SystemTime) -> BlocksSession {
        self.session(None)
    }

    /// Nobody has asked for reports.
    fn apply(&self, _remote: SocketAddr, _report: Sent, _now: SystemTime) {}

    fn reload(&self) -> bool {
        let changes = self.news.map_or_else(Vec::new, News::take);
        if changes.is_empty() {
            return false;
        }
        let mut files = Files::clone(&self.files());
        for change in changes {
            match change {
                Change::Serve(file) => {
                    let copies = files.entry(file.hash).or_default();
                    copies.retain(|copy| copy.id != file.id);
                    copies.push(file);
                }
                Change::Forget(hash, id) => {
                    if let Some(copies) = files.get_mut(&hash) {
                        copies.retain(|copy| copy.id != id);
                    }
                    files.retain(|_, copies| !copies.is_empty());
                }
            }
        }
        // Sessions that have begun keep the files that they had.
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(files);
        true
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let files = self.files();
        files
            .values()
            .flatten()
            .flat_map(|file| [file.data.as_raw_fd(), file.meta.0.as_raw_fd()])
            .collect()
    }
}

/// A connection that requests blocks, one at a time or pipelined.
#[derive(Debug)]
pub struct BlocksSession {
    files: Arc<Files>,
    /// The part of an incomplete request that has arrived: fewer than 64 bytes.
    input: Vec<u8>,
    /// If blocks are reported: those in the output, which have been sent when there is input again.
    sent: Option<Vec<Sent>>,
    /// Where blocks are verified only when they are asked for: what they must be.
    hashes: Option<Arc<on_demand::Hashes>>,
    read_errors: Option<Arc<ReadErrors>>,
}

impl Session for BlocksSession {
    type Report = Sent;

    fn receive(&mut self, input: &[u8], output: &mut Output, reports: &mut Vec<Sent>) -> Next {
        if let Some(sent) = &mut self.sent {
            reports.append(sent);
        }
        if input.is_empty() {
            return self.end_of_input(output);
        }
        if self.is_idle() {
            // Whole requests need no memory of their own.
            return self.answer_all(input, output);
        }
        let mut arrived = std::mem::take(&mut self.input);
        arrived.extend_from_slice(input);
        self.answer_all(&arrived, output)
    }

    fn is_idle(&self) -> bool {
        self.input.is_empty()
    }

    fn file_failed(&mut self, file: &Arc<File>, offset: u64, errno: i32) {
        let Some(errors) = &self.read_errors else {
            return;
        };
        let served = self.files.values().flatten();
        if let Some(served) = served.into_iter().find(|one| Arc::ptr_eq(&one.data, file)) {
            let block = offset / served.geometry.block_size();
            errors.note(ReadError {
                id: served.id,
                block: u32::try_from(block).unwrap_or(u32::MAX),
                errno,
            });
        }
    }
}

impl BlocksSession {
    fn end_of_input(&self, output: &mut Output) -> Next {
        if self.is_idle() {
            Next::Close(Outcome::Done)
        } else {
            refuse_request(output, RequestError::Truncated)
        }
    }

    /// Answers all complete requests, and keeps the rest.
    fn answer_all(&mut self, mut arrived: &[u8], output: &mut Output) -> Next {
        while !arrived.is_empty() {
            match Request::decode(arrived) {
                Ok(Some(request)) => {
                    arrived = &arrived[peer::REQUEST_LEN..];
                    let next = self.answer(&request, output);
                    if next != Next::Read {
                        return next;
                    }
                }
                Ok(None) => break,
                Err(error) => return refuse_request(output, error),
            }
        }
        self.input.extend_from_slice(arrived);
        Next::Read
    }

    fn answer(&mut self, request: &Request, output: &mut Output) -> Next {
        let copies = self.files.get(&request.hash);
        let Some(file) = copies.and_then(|copies| copy_for(copies, request)) else {
            output.push_bytes(&peer::message(
                Status::UnknownHash,
                "this peer does not have the file",
            ));
            return Next::Close(Outcome::Refused);
        };
        // Block 0 stands for the file: an empty one has a map and a cascade file, too.
        let is_for_file = request.extension.is_some() && request.block == 0;
        if request.block >= u64::from(file.geometry.blocks()) && !is_for_file {
            return refuse_block(file, output);
        }
        match (request.extension, &self.hashes) {
            (Some(Extension::Meta), _) => answer_meta(file, output),
            (Some(Extension::Map), None) => answer_map(file, output),
            (_, Some(hashes)) => {
                hashes.verify(file, request.block);
                answer_block(file, request.block, output, &mut self.sent)
            }
            (None, None) => answer_block(file, request.block, output, &mut self.sent),
        }
    }
}

fn refuse_request(output: &mut Output, error: RequestError) -> Next {
    output.push_bytes(&peer::message(Status::BadRequest, error));
    Next::Close(Outcome::ProtocolError)
}

/// The copy from which a request is answered: one that has the block, or the most blocks.
fn copy_for<'a>(copies: &'a Copies, request: &Request) -> Option<&'a ServedFile> {
    if let [only] = &copies[..] {
        return Some(only);
    }
    let block = u32::try_from(request.block).ok();
    let holds = |copy: &&ServedFile| block.is_some_and(|block| copy.holds(block));
    let holder = match request.extension {
        None => copies.iter().find(holds),
        Some(_) => None,
    };
    holder.or_else(|| copies.iter().max_by_key(|copy| copy.blocks_held()))
}

fn refuse_block(file: &ServedFile, output: &mut Output) -> Next {
    let blocks = file.geometry.blocks();
    output.push_bytes(&peer::message(
        Status::NoSuchBlock,
        format_args!("the file has only {blocks} blocks"),
    ));
    Next::Close(Outcome::Refused)
}

fn answer_block(
    file: &ServedFile,
    block: u64,
    output: &mut Output,
    sent: &mut Option<Vec<Sent>>,
) -> Next {
    let range = u32::try_from(block)
        .ok()
        .and_then(|block| Some((block, file.geometry.range(block)?)));
    let Some((block, range)) = range else {
        return refuse_block(file, output);
    };
    if !file.holds(block) {
        output.push_bytes(&peer::message(
            Status::NotPresent,
            "this block is not here yet",
        ));
        return Next::Read;
    }
    let header = ResponseHeader {
        status: Status::Success,
        length: range.end - range.start,
    };
    output.push_bytes(&header.encode());
    output.push_file(&file.data, range);
    if let Some(sent) = sent {
        let hash = file.hash;
        sent.push(Sent { hash, block });
    }
    Next::Read
}

fn answer_map(file: &ServedFile, output: &mut Output) -> Next {
    let map = file.map();
    if let Some(onlookers) = file.onlookers.as_ref().filter(|_| !map.is_empty()) {
        onlookers.look();
    }
    output.push_bytes(
        &ResponseHeader {
            status: Status::Map,
            length: map.len() as u64,
        }
        .encode(),
    );
    output.push_bytes(&map);
    Next::Read
}

fn answer_meta(file: &ServedFile, output: &mut Output) -> Next {
    let (meta, length) = &file.meta;
    if *length > peer::MAX_META {
        output.push_bytes(&peer::message(
            Status::BadRequest,
            "the cascade file is too long to be sent",
        ));
        return Next::Close(Outcome::Refused);
    }
    output.push_bytes(
        &ResponseHeader {
            status: Status::Meta,
            length: *length,
        }
        .encode(),
    );
    output.push_file(meta, 0..*length);
    Next::Read
}
