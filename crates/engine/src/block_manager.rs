//! The KV pool's blocks: who holds which, what they contain, which may be re-used.
//! Knows no tensor; a block is a number.
//!
//! A block with reference count 0 is free. A free block that is *published* (its tokens and its
//! parent are in the index) can still be hit; it is given away last, the longest unused first.
//!
//! Content is named by [`ContentId`], not by block: a block re-used for other tokens gets a new
//! id, so what was published below its old content can no longer be reached. Two blocks filled
//! independently with the same content share one id, so either keeps the chain below alive.
//! The index finds (parent content, tokens) by hash and compares both: a collision is no hit.

use crate::scheduler::IntegrityError;
use crate::sequence::AdapterKey;
use data::TokenId;
use std::collections::{BTreeMap, BTreeSet};

/// A block of the KV pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId(pub(crate) u32);

/// Generation of the cache; a reset starts the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// Whether finished and running rows' blocks are found by later rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixCache {
    /// Full blocks are shared.
    On,
    /// Each row computes its whole prompt; forks still share.
    Off,
}

/// Hash of a block's parent and tokens, in `bits` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHasher {
    mask: u64,
}

impl BlockHasher {
    /// All 64 bits.
    pub const FULL: Self = Self { mask: u64::MAX };

    /// Keeps `bits` bits of the hash (64 at most): few bits make collisions, for tests.
    pub fn truncated(bits: u32) -> Self {
        Self {
            mask: 1u64.checked_shl(bits).map_or(u64::MAX, |bit| bit - 1),
        }
    }

    fn hash(self, parent: Parent, tokens: &[TokenId]) -> u64 {
        let start = match parent {
            Parent::Root(None) => mix(1),
            Parent::Root(Some(adapter)) => mix(mix(2) ^ adapter.0),
            Parent::Content(id) => mix(mix(3) ^ id.0),
        };
        tokens
            .iter()
            .fold(start, |hash, token| mix(hash ^ u64::from(*token)))
            & self.mask
    }
}

/// SplitMix64's step (Steele, Lea, Flood 2014).
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Name of a block's worth of tokens below a given parent; never re-used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContentId(u64);

/// What stands before a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    /// Nothing; the row's adapter tells its K/V from those of other weights.
    Root(Option<AdapterKey>),
    /// A published block.
    Content(ContentId),
}

#[derive(Debug)]
struct Content {
    id: ContentId,
    parent: Parent,
    tokens: Box<[TokenId]>,
    hash: u64,
}

#[derive(Debug, Default)]
struct Block {
    num_refs: usize,
    content: Option<Content>,
    /// Key in `cached` while it is free and published.
    released_at: Option<u64>,
}

/// What a row needs at admission.
pub(crate) struct Demand<'a> {
    pub(crate) adapter: Option<AdapterKey>,
    pub(crate) tokens: &'a [TokenId],
    /// A hit must end at or before this position.
    pub(crate) num_hit_max: usize,
    /// Blocks in all, hits included.
    pub(crate) num_blocks: usize,
    /// Blocks that must be left free afterwards.
    pub(crate) num_spare: usize,
}

/// Blocks now held for a row, in order; the first `num_hit` tokens have their K/V.
pub(crate) struct Reservation {
    pub(crate) blocks: Vec<BlockId>,
    pub(crate) num_hit: usize,
}

/// All blocks of the pool.
#[derive(Debug)]
pub(crate) struct BlockManager {
    block_size: usize,
    policy: PrefixCache,
    hasher: BlockHasher,
    blocks: Vec<Block>,
    /// Free and unpublished.
    blank: Vec<BlockId>,
    /// Free and published, by time of release.
    cached: BTreeMap<u64, BlockId>,
    index: BTreeMap<u64, Vec<BlockId>>,
    epoch: Epoch,
    num_contents: u64,
    num_releases: u64,
}

impl BlockManager {
    /// `num_blocks` free blocks of `block_size` tokens each.
    pub(crate) fn new(
        num_blocks: u32,
        block_size: usize,
        policy: PrefixCache,
        hasher: BlockHasher,
    ) -> Self {
        Self {
            block_size,
            policy,
            hasher,
            blocks: (0..num_blocks).map(|_| Block::default()).collect(),
            blank: (0..num_blocks).rev().map(BlockId).collect(),
            cached: BTreeMap::new(),
            index: BTreeMap::new(),
            epoch: Epoch::default(),
            num_contents: 0,
            num_releases: 0,
        }
    }

    pub(crate) fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn num_free(&self) -> usize {
        self.blank.len() + self.cached.len()
    }

    pub(crate) fn num_published(&self) -> usize {
        self.index.values().map(Vec::len).sum()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn is_shared(&self, block: BlockId) -> bool {
        self.block(block).num_refs > 1
    }

    /// Finds what the cache has of the row's tokens and allocates the rest; `None`, and nothing
    /// changed, where too few blocks are free.
    pub(crate) fn reserve(&mut self, demand: &Demand<'_>) -> Option<Reservation> {
        let mut blocks = self.lookup(demand);
        let num_hit_blocks = blocks.len();
        // A hit on a free block takes it from the free ones just as a new block does.
        let num_hit_free = blocks
            .iter()
            .filter(|b| self.block(**b).num_refs == 0)
            .count();
        let num_taken = demand.num_blocks - num_hit_blocks + num_hit_free;
        if num_taken + demand.num_spare > self.num_free() {
            return None;
        }
        // Hits are held before anything is allocated, or the allocation could evict them.
        for block in &blocks {
            self.hold(*block);
        }
        for _ in num_hit_blocks..demand.num_blocks {
            blocks.push(self.allocate().expect("num_taken blocks are free"));
        }
        Some(Reservation {
            blocks,
            num_hit: num_hit_blocks * self.block_size,
        })
    }

    /// A blank block, held once; `None` if no block is free. Evicts the longest unused content.
    pub(crate) fn allocate(&mut self) -> Option<BlockId> {
        let block = match self.blank.pop() {
            Some(block) => block,
            None => {
                let (_, block) = self.cached.pop_first()?;
                self.block_mut(block).released_at = None;
                self.remove_content(block);
                block
            }
        };
        self.block_mut(block).num_refs = 1;
        Some(block)
    }

    /// One more holder.
    pub(crate) fn hold(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        block.num_refs += 1;
        if let Some(released_at) = block.released_at.take() {
            self.cached.remove(&released_at);
        }
    }

    /// One holder less for each block of a table. The last block goes first: whoever holds a
    /// block holds its parent too, so children are released, and evicted, before their parent.
    pub(crate) fn release_table(&mut self, table: &[BlockId]) {
        for block in table.iter().rev() {
            self.release(*block);
        }
    }

    /// One holder less.
    pub(crate) fn release(&mut self, id: BlockId) {
        self.num_releases += 1;
        let released_at = self.num_releases;
        let block = self.block_mut(id);
        assert!(block.num_refs > 0, "{id:?} released by nobody who holds it");
        block.num_refs -= 1;
        if block.num_refs > 0 {
            return;
        }
        if block.content.is_some() {
            block.released_at = Some(released_at);
            self.cached.insert(released_at, id);
        } else {
            self.blank.push(id);
        }
    }

    /// Puts a full block into the index below the block before it. Returns whether it is there
    /// now: not if the cache is off or the block before it is not published.
    pub(crate) fn publish(
        &mut self,
        id: BlockId,
        previous: Option<BlockId>,
        adapter: Option<AdapterKey>,
        tokens: &[TokenId],
    ) -> Published {
        assert_eq!(tokens.len(), self.block_size, "{id:?} is not full");
        let parent = match previous {
            None => Some(Parent::Root(adapter)),
            Some(previous) => self.content_of(previous).map(Parent::Content),
        };
        let (PrefixCache::On, Some(parent)) = (self.policy, parent) else {
            return Published::No;
        };
        let content_id = match self.find(parent, tokens) {
            Some(twin) => self
                .content_of(twin)
                .expect("the index lists published blocks only"),
            None => {
                self.num_contents += 1;
                ContentId(self.num_contents)
            }
        };
        let hash = self.hasher.hash(parent, tokens);
        self.index.entry(hash).or_default().push(id);
        self.block_mut(id).content = Some(Content {
            id: content_id,
            parent,
            tokens: tokens.into(),
            hash,
        });
        Published::Yes
    }

    /// Takes a block out of the index, held or not: its K/V were never written.
    pub(crate) fn unpublish(&mut self, id: BlockId) {
        self.remove_content(id);
        if let Some(released_at) = self.block_mut(id).released_at.take() {
            self.cached.remove(&released_at);
            self.blank.push(id);
        }
    }

    /// Forgets all content; held blocks stay held.
    pub(crate) fn reset_cache(&mut self) {
        for id in (0..).map(BlockId).take(self.blocks.len()) {
            self.unpublish(id);
        }
        self.epoch = Epoch(self.epoch.0 + 1);
    }

    /// Published blocks that hold the row's first tokens, up to `num_hit_max`.
    fn lookup(&self, demand: &Demand<'_>) -> Vec<BlockId> {
        let mut parent = Parent::Root(demand.adapter);
        let mut hits = Vec::new();
        for tokens in demand.tokens[..demand.num_hit_max].chunks_exact(self.block_size) {
            let Some(block) = self.find(parent, tokens) else {
                break;
            };
            let content = self
                .content_of(block)
                .expect("the index lists published blocks only");
            parent = Parent::Content(content);
            hits.push(block);
        }
        hits
    }

    fn find(&self, parent: Parent, tokens: &[TokenId]) -> Option<BlockId> {
        let candidates = self.index.get(&self.hasher.hash(parent, tokens))?;
        let is_match = |block: &&BlockId| {
            let content = self.block(**block).content.as_ref();
            content.is_some_and(|c| c.parent == parent && *c.tokens == *tokens)
        };
        candidates.iter().find(is_match).copied()
    }

    fn remove_content(&mut self, id: BlockId) {
        let Some(content) = self.block_mut(id).content.take() else {
            return;
        };
        let bucket = self
            .index
            .get_mut(&content.hash)
            .expect("published blocks are in the index");
        bucket.retain(|other| *other != id);
        if bucket.is_empty() {
            self.index.remove(&content.hash);
        }
    }

    fn content_of(&self, id: BlockId) -> Option<ContentId> {
        self.block(id).content.as_ref().map(|content| content.id)
    }

    fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.0 as usize]
    }

    fn block_mut(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.0 as usize]
    }
}

/// Whether a block is now in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    Yes,
    No,
}

/// Checks, for `check_integrity`.
impl BlockManager {
    /// Free and held blocks are all blocks, reference counts equal `num_holders` (by block),
    /// and the index lists exactly the published blocks, each below a parent that exists.
    pub(crate) fn check(&self, num_holders: &[usize]) -> Result<(), IntegrityError> {
        let free: BTreeSet<BlockId> = self
            .blank
            .iter()
            .chain(self.cached.values())
            .copied()
            .collect();
        IntegrityError::unless(free.len() == self.num_free(), || {
            "a block is free twice".into()
        })?;
        let alive: BTreeSet<ContentId> = self
            .blocks
            .iter()
            .filter_map(|b| b.content.as_ref())
            .map(|c| c.id)
            .collect();
        let indexed: BTreeSet<BlockId> = self.index.values().flatten().copied().collect();
        IntegrityError::unless(indexed.len() == self.num_published(), || {
            "a block is in the index twice".into()
        })?;
        for ((id, block), holders) in (0..).map(BlockId).zip(&self.blocks).zip(num_holders) {
            let describe = |what: &str| format!("{id:?} {what}; {holders} holders; {block:?}");
            IntegrityError::unless(block.num_refs == *holders, || describe("is miscounted"))?;
            let is_free = free.contains(&id);
            IntegrityError::unless(is_free == (*holders == 0), || {
                describe("leaked or given away")
            })?;
            let is_cached = is_free && block.content.is_some();
            let listed_at = block
                .released_at
                .map(|at| self.cached.get(&at) == Some(&id));
            IntegrityError::unless(listed_at == is_cached.then_some(true), || {
                describe("is in the wrong free list")
            })?;
            let is_indexed = indexed.contains(&id);
            IntegrityError::unless(is_indexed == block.content.is_some(), || {
                describe("and the index disagree")
            })?;
            if let Some(Content {
                parent: Parent::Content(parent),
                ..
            }) = &block.content
            {
                IntegrityError::unless(alive.contains(parent), || describe("outlived its parent"))?;
            }
        }
        Ok(())
    }

    /// The published blocks of a table hold the row's tokens, each below the one before it.
    pub(crate) fn check_table(
        &self,
        table: &[BlockId],
        adapter: Option<AdapterKey>,
        tokens: &[TokenId],
    ) -> Result<(), IntegrityError> {
        let mut parent = Some(Parent::Root(adapter));
        for (index, id) in table.iter().enumerate() {
            let Some(content) = &self.block(*id).content else {
                parent = None;
                continue;
            };
            let expected = tokens.get(index * self.block_size..(index + 1) * self.block_size);
            IntegrityError::unless(expected == Some(&*content.tokens), || {
                format!("{id:?} holds {content:?}, the row has {expected:?}")
            })?;
            IntegrityError::unless(Some(content.parent) == parent, || {
                format!("{id:?} holds {content:?}, the row has the parent {parent:?}")
            })?;
            parent = Some(Parent::Content(content.id));
        }
        Ok(())
    }
}
