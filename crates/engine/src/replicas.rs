//! Several workers behind one handle, each with a model of its own: which of them gets the
//! next request, and one answer of all where all are asked.
//!
//! A request goes to the replica that has seen most of its prompt, unless that one has much
//! more to do than the least busy. Where a request is computed does not show in its answer.

use crate::worker::{Command, Worker};
use data::{Reply, RequestError, TokenId};
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Prompts are remembered in pieces of so many tokens.
const PIECE_TOKENS: usize = 64;
/// Pieces remembered of a replica; beyond that it is forgotten what it has seen.
const PIECES_MAX: usize = 1 << 17;
/// How much more a replica may have to do and still be sent what it has seen.
const SLACK_TOKENS: usize = 8192;

/// The workers. Dropping them ends their threads.
pub(crate) struct Replicas {
    workers: Vec<Replica>,
    router: Mutex<Router>,
}

struct Replica {
    /// `None` once the handle is being dropped.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    load: Arc<AtomicUsize>,
}

/// A request's share in the load of its replica; dropped with the request.
pub(crate) struct Ticket {
    load: Arc<AtomicUsize>,
    tokens: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.load.fetch_sub(self.tokens, Ordering::Relaxed);
    }
}

impl Replicas {
    /// Starts a thread for each worker.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(workers: Vec<(Worker, Sender<Command>)>) -> std::io::Result<Self> {
        let mut replicas = Self {
            router: Mutex::new(Router::new(workers.len())),
            workers: Vec::with_capacity(workers.len()),
        };
        for (worker, commands) in workers {
            let thread = std::thread::Builder::new()
                .name("engine".into())
                .spawn(|| worker.run())?;
            replicas.workers.push(Replica {
                commands: Some(commands),
                thread: Some(thread),
                load: Arc::default(),
            });
        }
        Ok(replicas)
    }

    /// Sends a request of this prompt, with up to `tokens` tokens to compute, where it is
    /// best computed.
    pub(crate) fn submit(
        &self,
        prompt: &[TokenId],
        tokens: usize,
        command: impl FnOnce(Ticket) -> Command,
    ) {
        let loads: Vec<usize> = self.workers.iter().map(Replica::load).collect();
        let mut router = self.router.lock().unwrap_or_else(PoisonError::into_inner);
        let replica = &self.workers[router.choose(prompt, &loads)];
        replica.load.fetch_add(tokens, Ordering::Relaxed);
        let load = Arc::clone(&replica.load);
        replica.send(command(Ticket { load, tokens }));
    }

    /// Sends every worker a command; `reply` gets their answers merged.
    pub(crate) fn ask_all<T: Send>(
        &self,
        reply: Reply<T>,
        merge: fn(&mut T, T),
        command: impl Fn(Gather<T>) -> Command,
    ) {
        let gathered = Gathered {
            left: self.workers.len(),
            merge,
            value: None,
            reply: Some(reply),
        };
        let gather = Gather(Arc::new(Mutex::new(gathered)));
        for worker in &self.workers {
            worker.send(command(Gather(Arc::clone(&gather.0))));
        }
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.commands = None;
        }
        for worker in &mut self.workers {
            // A panic of the worker was already answered by EngineStopped.
            drop(worker.thread.take().map(JoinHandle::join));
        }
    }
}

impl Replica {
    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    fn send(&self, command: Command) {
        // A worker that has gone drops the command and with it the reply: EngineStopped.
        drop(
            self.commands
                .as_ref()
                .map(|commands| commands.send(command)),
        );
    }
}

/// One worker's part of an answer by all.
pub(crate) struct Gather<T>(Arc<Mutex<Gathered<T>>>);

struct Gathered<T> {
    left: usize,
    merge: fn(&mut T, T),
    value: Option<Result<T, RequestError>>,
    reply: Option<Reply<T>>,
}

impl<T> Gather<T> {
    /// Adds this worker's answer; the last one answers the request. One error is the error of
    /// all.
    pub(crate) fn send(self, answer: Result<T, RequestError>) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let merge = gathered.merge;
        gathered.value = Some(match (gathered.value.take(), answer) {
            (Some(Ok(mut all)), Ok(one)) => {
                merge(&mut all, one);
                Ok(all)
            }
            (None, answer) => answer,
            (Some(Err(error)), _) | (Some(Ok(_)), Err(error)) => Err(error),
        });
        gathered.left -= 1;
        if gathered.left == 0
            && let (Some(reply), Some(value)) = (gathered.reply.take(), gathered.value.take())
        {
            reply.send(value);
        }
    }
}

/// Remembers which replica has seen which beginnings of prompts.
struct Router {
    /// Hashes of whole pieces from the front.
    seen: Vec<HashSet<u64>>,
}

impl Router {
    fn new(replicas: usize) -> Self {
        Self {
            seen: vec![HashSet::new(); replicas],
        }
    }

    /// The replica for this prompt, where `loads` is what each has to do; remembers it.
    fn choose(&mut self, prompt: &[TokenId], loads: &[usize]) -> usize {
        if loads.len() == 1 {
            return 0;
        }
        let pieces = pieces(prompt);
        let least = loads.iter().copied().min().unwrap_or(0);
        let most = least + least / 8 + SLACK_TOKENS;
        let known = |replica: usize| {
            let seen = &self.seen[replica];
            pieces.iter().take_while(|hash| seen.contains(hash)).count()
        };
        let candidates = (0..loads.len()).filter(|replica| loads[*replica] <= most);
        let key = |replica: &usize| (std::cmp::Reverse(known(*replica)), loads[*replica]);
        let chosen = candidates.min_by_key(key).unwrap_or(0);
        let seen = &mut self.seen[chosen];
        if seen.len() + pieces.len() > PIECES_MAX {
            seen.clear();
        }
        seen.extend(pieces);
        chosen
    }
}

/// Hashes of the prompt up to the end of each whole piece, and of the whole prompt.
fn pieces(prompt: &[TokenId]) -> Vec<u64> {
    let mut hasher = DefaultHasher::new();
    let hash = |piece: &[TokenId]| {
        piece.hash(&mut hasher);
        hasher.finish()
    };
    prompt.chunks(PIECE_TOKENS).map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_prompts_meet_and_others_spread() {
        let mut router = Router::new(3);
        let prompt = |start: TokenId| (start..start + 200).collect::<Vec<_>>();
        assert_eq!(router.choose(&prompt(0), &[5, 0, 9]), 1);
        assert_eq!(router.choose(&prompt(0), &[5, 700, 0]), 1, "seen before");
        let mut longer = prompt(0);
        longer.extend(900..950);
        assert_eq!(router.choose(&longer, &[5, 700, 0]), 1, "its beginning was");
        assert_eq!(router.choose(&prompt(5000), &[5, 700, 0]), 2, "new: least");
    }

    #[test]
    fn no_replica_is_buried_under_what_it_knows() {
        let mut router = Router::new(2);
        let prompt: Vec<TokenId> = (0..100).collect();
        assert_eq!(router.choose(&prompt, &[0, 0]), 0);
        assert_eq!(router.choose(&prompt, &[SLACK_TOKENS, 0]), 0);
        assert_eq!(
            router.choose(&prompt, &[50_000, 40_000]),
            0,
            "not much more"
        );
        assert_eq!(router.choose(&prompt, &[SLACK_TOKENS + 1, 0]), 1);
        let chosen = router.choose(&prompt, &[50_000, 40_000]);
        assert_eq!(chosen, 1, "both know it: the less busy");
    }

    #[test]
    fn answers_are_merged_and_one_error_is_an_error() {
        let all = |answers: Vec<Result<u32, RequestError>>| {
            let (reply, answer) = data::pending();
            let gather = Gather(Arc::new(Mutex::new(Gathered {
                left: answers.len(),
                merge: |all: &mut u32, one| *all += one,
                value: None,
                reply: Some(reply),
            })));
            for answer in answers {
                Gather(Arc::clone(&gather.0)).send(answer);
            }
            answer.wait()
        };
        assert_eq!(all(vec![Ok(1), Ok(2), Ok(4)]).unwrap(), 7);
        let wrong = || Err(RequestError::EngineStopped);
        assert!(all(vec![Ok(1), wrong(), Ok(4)]).is_err());
    }

    #[test]
    fn a_ticket_gives_its_load_back() {
        let load = Arc::new(AtomicUsize::new(7));
        drop(Ticket {
            load: Arc::clone(&load),
            tokens: 7,
        });
        assert_eq!(load.load(Ordering::Relaxed), 0);
    }
}
