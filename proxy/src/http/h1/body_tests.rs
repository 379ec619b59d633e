use proptest::prelude::*;

use super::*;

/// All of a body that comes in pieces of this size: its data, and its trailers.
fn read(bytes: &[u8], piece: usize, framing: Framing) -> Result<(Vec<u8>, HeaderMap), Malformed> {
    let mut decoder = Decoder::new(framing, 100);
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    let mut input = BytesMut::new();
    let mut pieces = bytes.chunks(piece.max(1));
    loop {
        match decoder.decode(&mut input)? {
            Decoded::Data(more) => data.extend_from_slice(&more),
            Decoded::Trailers(all) => trailers = all,
            Decoded::End => return Ok((data, trailers)),
            Decoded::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => decoder.end_of_input()?,
            },
        }
    }
}

fn written(pieces: &[&[u8]], trailers: Option<&HeaderMap>, framing: Framing) -> Vec<u8> {
    let mut out = Output::default();
    let mut encoder = Encoder::new(framing);
    for piece in pieces {
        encoder.data(Bytes::copy_from_slice(piece), &mut out).unwrap();
    }
    encoder.end(trailers, &mut out).unwrap();
    assert!(encoder.is_done());
    out.to_vec()
}

#[test]
fn chunks_and_trailers_are_read() {
    let text = b"4;name=value\r\nWiki\r\n5\r\npedia\r\n0\r\nx-sum: 1\r\nX-More: 2\r\n\r\n";
    for piece in 1..text.len() {
        let (data, trailers) = read(text, piece, Framing::Chunked).unwrap();
        assert_eq!(data, b"Wikipedia");
        assert_eq!((trailers.len(), &trailers["x-more"]), (2, &"2".parse().unwrap()));
    }
}

#[test]
fn what_is_no_chunk_is_refused() {
    for bad in [
        "\r\n",
        "x\r\n",
        "4 \n",
        "4\nWiki\r\n0\r\n\r\n",
        "4\r\nWikix\r\n",
        "4\r\nWiki\n0\r\n\r\n",
        "ffffffffffffffff1\r\n",
        "0\r\nbad name: x\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "4\r\nWik",
        "0\r\n",
        "",
    ] {
        assert!(read(bad.as_bytes(), 3, Framing::Chunked).is_err(), "{bad:?}");
    }
    let long = format!("1;{}\r\n", "x".repeat(101));
    assert!(read(long.as_bytes(), 9, Framing::Chunked).is_err());
    let long = format!("0\r\na: {}\r\n\r\n", "x".repeat(101));
    assert!(read(long.as_bytes(), 9, Framing::Chunked).is_err());
}

#[test]
fn a_length_is_neither_more_nor_less() {
    assert_eq!(read(b"abcd", 3, Framing::Length(4)).unwrap().0, b"abcd");
    assert!(read(b"abc", 3, Framing::Length(4)).is_err());
    let mut decoder = Decoder::new(Framing::Length(2), 0);
    let mut input = BytesMut::from(&b"abGET"[..]);
    assert!(matches!(decoder.decode(&mut input), Ok(Decoded::Data(data)) if data == "ab"));
    assert!(matches!(decoder.decode(&mut input), Ok(Decoded::End)));
    assert_eq!(input, "GET");
    let (mut encoder, mut out) = (Encoder::new(Framing::Length(2)), Output::default());
    assert!(encoder.data(Bytes::from_static(b"abc"), &mut out).is_err());
    assert!(Encoder::new(Framing::Length(2)).end(None, &mut out).is_err());
}

#[test]
fn until_close_is_until_close() {
    assert_eq!(read(b"abc", 2, Framing::UntilClose).unwrap().0, b"abc");
    assert_eq!(written(&[b"a", b"bc"], None, Framing::UntilClose), b"abc");
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..6000), 0..6),
        piece in 1_usize..7000,
        chunked: bool,
    ) {
        let all = pieces.concat();
        let framing = if chunked { Framing::Chunked } else { Framing::Length(all.len() as u64) };
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let bytes = written(&slices, Some(&trailers), framing);
        let (data, read) = read(&bytes, piece, framing).unwrap();
        prop_assert_eq!(data, all);
        prop_assert_eq!(read.contains_key("x-sum"), chunked);
    }
}
