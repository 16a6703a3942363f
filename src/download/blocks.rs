//! The blocks of a download: which are missing, which of those nobody was asked for, and how rare they are.

/// The most blocks that are compared for rarity at once.
const COMPARED: usize = 1024;
/// The most equally rare blocks of which the rank is computed.
const RANKED: usize = 256;

/// The state of every block. A missing block is *pending* while nobody was asked for it.
#[derive(Debug)]
pub struct Blocks {
    present: Vec<bool>,
    missing: u32,
    /// How many requests are under way for each block.
    requests: Vec<u8>,
    /// How many peers are known to have each block, of those that do not have everything.
    holders: Vec<u16>,
    /// The pending blocks, in random order.
    pending: Vec<u32>,
    /// Where a block stands in `pending`; `NOWHERE` if it does not.
    place: Vec<u32>,
    /// No block before this one is pending.
    first: u32,
}

const NOWHERE: u32 = u32::MAX;

impl Blocks {
    /// The blocks of which `present` says no are missing.
    pub fn new(blocks: u32, present: impl Fn(u32) -> bool, random: &mut fastrand::Rng) -> Self {
        let present: Vec<bool> = (0..blocks).map(present).collect();
        let mut pending: Vec<u32> = (0..blocks)
            .filter(|block| !present[*block as usize])
            .collect();
        random.shuffle(&mut pending);
        let mut place = vec![NOWHERE; blocks as usize];
        for (index, block) in pending.iter().enumerate() {
            place[*block as usize] = index as u32;
        }
        let all = blocks as usize;
        Self {
            missing: pending.len() as u32,
            present,
            requests: vec![0; all],
            holders: vec![0; all],
            pending,
            place,
            first: 0,
        }
    }

    /// How many blocks are missing.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Whether a block is missing, and one request for it is under way.
    pub fn is_asked_for_once(&self, block: u32) -> bool {
        !self.present[block as usize] && self.requests[block as usize] == 1
    }

    /// A peer is asked for the block.
    pub fn requested(&mut self, block: u32) {
        self.requests[block as usize] += 1;
        self.remove_pending(block);
    }

    /// A request for the block is over.
    pub fn released(&mut self, block: u32) {
        let requests = &mut self.requests[block as usize];
        *requests = requests.saturating_sub(1);
        if *requests == 0 && !self.present[block as usize] {
            self.add_pending(block);
        }
    }

    /// Whether a block is there.
    pub fn is_present(&self, block: u32) -> bool {
        self.present[block as usize]
    }

    /// The block is there; answers whether it was not before.
    pub fn set_present(&mut self, block: u32) -> bool {
        let new = !std::mem::replace(&mut self.present[block as usize], true);
        self.missing -= u32::from(new);
        self.remove_pending(block);
        new
    }

    /// A peer is known to have the block.
    pub fn add_holder(&mut self, block: u32) {
        let holders = &mut self.holders[block as usize];
        *holders = holders.saturating_add(1);
    }

    /// Any pending block.
    pub fn any_pending(&self) -> Option<u32> {
        self.pending.first().copied()
    }

    /// Whether a pending block is among those that `may_have` accepts. A sample decides where there are many.
    pub fn some_pending(&self, may_have: impl Fn(u32) -> bool) -> bool {
        self.pending
            .iter()
            .take(4 * COMPARED)
            .any(|block| may_have(*block))
    }

    /// The pending block with the lowest number.
    pub fn first_pending(&mut self) -> Option<u32> {
        while self
            .place
            .get(self.first as usize)
            .is_some_and(|place| *place == NOWHERE)
        {
            self.first += 1;
        }
        (self.first < self.place.len() as u32).then_some(self.first)
    }

    /// The rarest of the pending blocks that `may_have` accepts; of several the one with the lowest `rank`, of several
    /// again a random one. Of very many blocks a random window is compared, and only where that has none, all.
    pub fn rarest_pending(
        &self,
        random: &mut fastrand::Rng,
        may_have: impl Fn(u32) -> bool,
        rank: impl Fn(u32) -> u64,
    ) -> Option<u32> {
        let all = self.pending.len();
        if all == 0 {
            return None;
        }
        let start = random.usize(..all);
        let from = |start: usize, count: usize| {
            self.pending[start..]
                .iter()
                .chain(&self.pending[..start])
                .take(count)
                .copied()
        };
        let mut best: Option<(u16, u64, u32)> = None;
        let mut equals = 0;
        for block in from(start, COMPARED).filter(|block| may_have(*block)) {
            let holders = self.holders[block as usize];
            let rarer = best.is_none_or(|(rarest, ..)| holders < rarest);
            equals = if rarer { 0 } else { equals + 1 };
            // A rank is worth computing only for a block that is as rare as the best.
            if best.is_none_or(|(rarest, ..)| holders <= rarest) && equals < RANKED {
                let rank = rank(block);
                if best.is_none_or(|(rarest, lowest, _)| (holders, rank) < (rarest, lowest)) {
                    best = Some((holders, rank, block));
                }
            }
        }
        best.map(|(.., block)| block)
            .or_else(|| from(start, all).find(|block| may_have(*block)))
    }

    fn add_pending(&mut self, block: u32) {
        if self.place[block as usize] == NOWHERE {
            self.place[block as usize] = self.pending.len() as u32;
            self.pending.push(block);
            self.first = self.first.min(block);
        }
    }

    fn remove_pending(&mut self, block: u32) {
        let place = std::mem::replace(&mut self.place[block as usize], NOWHERE);
        if place == NOWHERE {
            return;
        }
        self.pending.swap_remove(place as usize);
        if let Some(moved) = self.pending.get(place as usize) {
            self.place[*moved as usize] = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random() -> fastrand::Rng {
        fastrand::Rng::with_seed(7)
    }

    #[test]
    fn a_block_is_pending_until_asked_for_and_again_when_it_comes_back() {
        let mut blocks = Blocks::new(3, |block| block == 1, &mut random());
        assert_eq!((blocks.missing(), blocks.first_pending()), (2, Some(0)));
        blocks.requested(0);
        assert_eq!(blocks.first_pending(), Some(2));
        blocks.requested(2);
        assert_eq!(blocks.any_pending(), None);
        blocks.released(0);
        assert_eq!(blocks.first_pending(), Some(0));
        blocks.set_present(2);
        blocks.released(2);
        assert_eq!((blocks.missing(), blocks.any_pending()), (1, Some(0)));
    }

    #[test]
    fn a_block_with_two_requests_comes_back_with_the_last() {
        let mut blocks = Blocks::new(1, |_| false, &mut random());
        blocks.requested(0);
        blocks.requested(0);
        blocks.released(0);
        assert_eq!(blocks.any_pending(), None);
        blocks.released(0);
        assert_eq!(blocks.any_pending(), Some(0));
    }

    #[test]
    fn the_rarest_of_the_possible_blocks_is_chosen() {
        let mut blocks = Blocks::new(4, |_| false, &mut random());
        for (block, holders) in [(0, 3), (1, 1), (2, 2), (3, 0)] {
            (0..holders).for_each(|_| blocks.add_holder(block));
        }
        let mut random = random();
        for _ in 0..50 {
            assert_eq!(
                blocks.rarest_pending(&mut random, |block| block != 3, |_| 0),
                Some(1)
            );
            assert_eq!(blocks.rarest_pending(&mut random, |_| false, |_| 0), None);
        }
    }

    #[test]
    fn of_equally_rare_blocks_the_one_of_the_lowest_rank_is_chosen() {
        let mut blocks = Blocks::new(4, |_| false, &mut random());
        blocks.add_holder(3);
        let mut random = random();
        for _ in 0..50 {
            let chosen =
                blocks.rarest_pending(&mut random, |_| true, |block| 10 - u64::from(block));
            assert_eq!(chosen, Some(2));
        }
    }

    #[test]
    fn a_rare_possibility_among_very_many_blocks_is_found() {
        let blocks = Blocks::new(100_000, |_| false, &mut random());
        assert_eq!(
            blocks.rarest_pending(&mut random(), |block| block == 77_777, |_| 0),
            Some(77_777)
        );
    }
}
