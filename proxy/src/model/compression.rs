//! Compression of requests and answers (`compressor.v3`, `decompressor.v3`).

use http::StatusCode;

use super::Name;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`
    Gzip,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
}

impl Coding {
    /// As `content-encoding` and `accept-encoding` have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// As metrics have it.
    pub fn stat(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "brotli",
            Self::Zstd => "zstd",
        }
    }
}

/// A compressor with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Library {
    /// `gzip.compressor.v3.Gzip`: level 1 to 9. Default 6.
    Gzip {
        /// Higher is smaller and slower.
        level: u32,
    },
    /// `brotli.compressor.v3.Brotli`
    Brotli {
        /// 0 to 11. Default 3.
        quality: u32,
        /// 10 to 24. Default 18.
        window_bits: u32,
    },
    /// `zstd.compressor.v3.Zstd`
    Zstd {
        /// Default 3.
        level: i32,
        /// Every frame ends with one.
        checksum: bool,
    },
}

impl Library {
    /// What it makes.
    pub fn coding(&self) -> Coding {
        match self {
            Self::Gzip { .. } => Coding::Gzip,
            Self::Brotli { .. } => Coding::Brotli,
            Self::Zstd { .. } => Coding::Zstd,
        }
    }
}

/// `compressor.v3.Compressor`
#[derive(Clone, Debug)]
pub struct Compressor {
    /// Name of the library's extension, for metrics.
    pub name: Name,
    /// The library.
    pub library: Library,
    /// None: requests are left alone.
    pub request: Option<Direction>,
    /// What is compressed of answers.
    pub response: Direction,
    /// Its settings stand in `response_direction_config`: metrics say `response`.
    pub response_named: bool,
    /// No answer with an `etag` is compressed. Else strong ones are taken out.
    pub disable_on_etag: bool,
    /// `accept-encoding` is not passed on, so that the upstream does not compress.
    pub remove_accept_encoding: bool,
    /// Answers with these are not compressed.
    pub uncompressible: Vec<StatusCode>,
    /// Wins over others that the client likes as much.
    pub choose_first: bool,
}

/// What is compressed.
#[derive(Clone, Debug)]
pub struct Direction {
    /// Default true.
    pub enabled: bool,
    /// Shorter bodies are not. Default 30 bytes.
    pub min_length: u64,
    /// Media types, without parameters.
    pub types: Vec<String>,
}

/// What a route says about a compressor.
#[derive(Clone, Debug, Default)]
pub struct CompressorRoute {
    /// It compresses nothing here.
    pub disabled: bool,
    /// Overrides [`Compressor::remove_accept_encoding`].
    pub remove_accept_encoding: Option<bool>,
    /// Another library.
    pub library: Option<(Name, Library)>,
}

/// `decompressor.v3.Decompressor`
#[derive(Clone, Debug)]
pub struct Decompressor {
    /// Name of the library's extension, for metrics.
    pub name: Name,
    /// What it takes.
    pub coding: Coding,
    /// Requests.
    pub request: Undo,
    /// Answers.
    pub response: Undo,
    /// Tell the upstream that it may compress. Default true.
    pub advertise: bool,
    /// Bytes that may come of one byte. Default 100.
    pub max_ratio: u64,
}

/// What is decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undo {
    /// Default true.
    pub enabled: bool,
    /// Even where `cache-control: no-transform` forbids it.
    pub ignore_no_transform: bool,
}

/// Media types that are compressed where nothing else is said.
pub const DEFAULT_TYPES: [&str; 18] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
];
