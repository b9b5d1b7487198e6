//! The network: what becomes of a frame between two machines. Loss, delay (and with it, another
//! order), doubles, cuts in one direction or both.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use dislog_cluster::{Network, Peer, PeerFrame};

use crate::random::Random;

/// How bad the network is.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) loss_permille: u64,
    pub(crate) double_permille: u64,
    pub(crate) delay_ms_max: u64,
    /// So many frames take up to `late_ms_max`.
    pub(crate) late_permille: u64,
    pub(crate) late_ms_max: u64,
}

impl Weather {
    pub(crate) const CALM: Weather = Weather {
        loss_permille: 0,
        double_permille: 0,
        delay_ms_max: 3,
        late_permille: 0,
        late_ms_max: 1,
    };

    /// Some bad weather.
    pub(crate) fn draw(random: &mut Random) -> Weather {
        Weather {
            loss_permille: [0, 5, 50, 200][random.index(4)],
            double_permille: [0, 10, 100][random.index(3)],
            delay_ms_max: [2, 10, 60][random.index(3)],
            late_permille: [0, 10, 50][random.index(3)],
            late_ms_max: [200, 1_000, 5_000][random.index(3)],
        }
    }
}

/// The wires between machines, which go by number.
#[derive(Debug)]
pub(crate) struct Wires {
    pub(crate) weather: Weather,
    /// From, to.
    cut: BTreeSet<(usize, usize)>,
}

impl Wires {
    pub(crate) fn new() -> Wires {
        Wires { weather: Weather::CALM, cut: BTreeSet::new() }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub(crate) fn mend(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// After how long each copy of a frame arrives that is sent now.
    pub(crate) fn delays_ms(&self, from: usize, to: usize, random: &mut Random) -> Vec<u64> {
        let weather = &self.weather;
        if self.is_cut(from, to) || random.permille(weather.loss_permille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.permille(weather.double_permille));
        let delay = |_| match random.permille(weather.late_permille) {
            true => random.below(weather.late_ms_max),
            false => random.below(weather.delay_ms_max),
        };
        (0..copies).map(delay).collect()
    }
}

/// What a node has sent since its last turn, encoded, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Mutex<Frames>>);

/// Frames, each with where it goes.
type Frames = Vec<(Arc<str>, Bytes)>;

impl Outbox {
    pub(crate) fn take(&self) -> Vec<(Arc<str>, Bytes)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Network for Outbox {
    fn send(&self, peer: &Peer, frame: PeerFrame) {
        let mut bytes = BytesMut::new();
        frame.encode_into(&mut bytes);
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push((Arc::clone(&peer.address), bytes.freeze()));
    }
}
