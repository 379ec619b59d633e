//! Every seed, and a few thousand small changes of each, through its target: what the fuzzers look
//! at for hours, looked at briefly wherever the tests run.

use std::fs;
use std::path::Path;

use pillion_fuzz::TARGETS;

/// Changed copies of each seed.
const COPIES: u32 = 700;

#[test]
fn seeds_and_their_neighbours_panic_nowhere() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    // The same on every run: a failure can be seen again.
    let mut random = fastrand::Rng::with_seed(2026);
    for (name, target) in TARGETS {
        let seeds: Vec<Vec<u8>> = fs::read_dir(folder.join(name))
            .unwrap_or_else(|error| panic!("seeds of {name}: {error}"))
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            target(seed);
            for _ in 0..COPIES {
                target(&changed(seed, &seeds, &mut random));
            }
        }
    }
}

/// One to four small changes.
fn changed(seed: &[u8], seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..random.u8(1..5) {
        let at = random.usize(..=data.len());
        match random.u8(..6) {
            0 => data.insert(at, random.u8(..)),
            1 if at < data.len() => data[at] ^= 1 << random.u8(..8),
            2 if at < data.len() => data[at] = random.u8(..),
            3 => data.truncate(at),
            4 if at < data.len() => {
                data.drain(at..data.len().min(at + random.usize(..8)));
            }
            _ => {
                let other = random.choice(seeds).map_or(&[][..], Vec::as_slice);
                let from = random.usize(..=other.len());
                let piece = &other[from..other.len().min(from + random.usize(..32))];
                data.splice(at..at, piece.iter().copied());
            }
        }
    }
    data
}
