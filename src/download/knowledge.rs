//! What is known of the blocks that a peer has.

use std::collections::HashMap;
use std::time::Duration;

use super::blocks::Blocks;

/// How long a peer without a map is not asked again for a block that it did not have.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How old a map may become while it still names missing blocks, and while it does not.
const USEFUL_MAP: Duration = Duration::from_millis(500);
const USELESS_MAP: Duration = Duration::from_millis(300);
/// A map of this many bytes doubles these times, so that maps do not crowd out blocks.
const LARGE_MAP: usize = 4096;

/// What is known of one peer.
#[derive(Debug)]
pub struct Knowledge {
    blocks: u32,
    maps: Maps,
    /// When a map was asked for last.
    asked: Option<Duration>,
    /// Whether it ever lacked a block that it was asked for.
    lacked: bool,
    /// Without a map: blocks that the peer did not have, and when it may be asked again.
    absent: HashMap<u32, Duration>,
}

#[derive(Debug)]
enum Maps {
    /// Whether the peer knows maps is not known.
    Unknown,
    /// It does not: the extension of PROTOCOL §5 is missing.
    None,
    /// Its last map, as on the wire.
    Some(Vec<u8>),
    /// It has every block.
    Everything,
}

impl Knowledge {
    /// Nothing is known of a peer, but that the file has so many blocks. Without `maps` it is never asked for one.
    pub fn new(blocks: u32, maps: bool) -> Self {
        Self {
            blocks,
            maps: if maps { Maps::Unknown } else { Maps::None },
            asked: None,
            lacked: false,
            absent: HashMap::new(),
        }
    }

    /// Whether the peer was never asked for anything.
    pub fn is_unknown(&self) -> bool {
        matches!(self.maps, Maps::Unknown)
    }

    /// Whether the peer has shown the extension.
    pub fn knows_maps(&self) -> bool {
        matches!(self.maps, Maps::Some(_) | Maps::Everything)
    }

    /// Whether the peer said that it has every block.
    pub fn has_everything(&self) -> bool {
        matches!(self.maps, Maps::Everything)
    }

    /// Whether the peer has every block as far as is known, though it may not have said so.
    pub fn seems_complete(&self) -> bool {
        match self.maps {
            Maps::Everything => true,
            Maps::Some(_) => false,
            Maps::Unknown | Maps::None => !self.lacked,
        }
    }

    /// Whether the peer is known to lack blocks.
    pub fn is_incomplete(&self) -> bool {
        match self.maps {
            Maps::Everything => false,
            Maps::Some(_) => true,
            Maps::Unknown | Maps::None => self.lacked,
        }
    }

    /// Whether it makes sense to ask the peer for a block.
    pub fn may_have(&self, block: u32, now: Duration) -> bool {
        let mapped = match &self.maps {
            Maps::Everything => true,
            Maps::Some(map) => bit(map, block),
            Maps::Unknown | Maps::None => true,
        };
        mapped && self.absent.get(&block).is_none_or(|again| *again <= now)
    }

    /// Whether the map should be asked for; `useless` says that the last one names nothing that is missing.
    pub fn wants_map(&self, now: Duration, useless: bool) -> bool {
        match &self.maps {
            Maps::Unknown => self.asked.is_none(),
            Maps::None | Maps::Everything => false,
            Maps::Some(map) => {
                let age = if useless { USELESS_MAP } else { USEFUL_MAP };
                let age = age * (1 + map.len() / LARGE_MAP) as u32;
                self.asked
                    .is_none_or(|asked| now.saturating_sub(asked) >= age)
            }
        }
    }

    /// The map is asked for.
    pub fn map_asked(&mut self, now: Duration) {
        self.asked = Some(now);
    }

    /// The peer answered with this map; empty means everything.
    pub fn map(&mut self, now: Duration, map: &[u8], blocks: &mut Blocks) {
        self.asked = Some(now);
        self.absent.clear();
        let everything = map.is_empty() || (0..self.blocks).all(|block| bit(map, block));
        if everything {
            self.maps = Maps::Everything;
            return;
        }
        let before = match &self.maps {
            Maps::Some(before) => before.as_slice(),
            _ => &[],
        };
        // Whole bytes that did not change are most of a map.
        for index in (0..map.len()).filter(|index| before.get(*index) != Some(&map[*index])) {
            let first = index as u32 * 8;
            (first..(first + 8).min(self.blocks))
                .filter(|block| bit(map, *block) && !bit(before, *block))
                .for_each(|block| blocks.add_holder(block));
        }
        self.maps = Maps::Some(map.to_vec());
    }

    /// The worker that asked for the map ended without an answer.
    pub fn map_unanswered(&mut self) {
        if self.is_unknown() {
            self.asked = None;
        }
    }

    /// The peer answered a request for its map as if it had not been one.
    pub fn no_map(&mut self) {
        self.maps = Maps::None;
    }

    /// The peer sent the block.
    pub fn has(&mut self, block: u32) {
        self.absent.remove(&block);
    }

    /// The peer did not have the block.
    pub fn lacks(&mut self, block: u32, now: Duration) {
        if self.has_everything() {
            // It had. Its next map will tell what it lost.
            self.maps = Maps::Some(vec![0xff; self.blocks.div_ceil(8) as usize]);
            self.asked = Some(now);
        }
        self.lacked = true;
        self.absent.insert(block, now + ASK_AGAIN);
    }
}

fn bit(map: &[u8], block: u32) -> bool {
    map.get(block as usize / 8)
        .is_some_and(|byte| byte & (0x80 >> (block % 8)) != 0)
}
