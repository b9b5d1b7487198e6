use proptest::prelude::*;

use super::*;

/// An input that arrives in pieces of the given lengths, over and over.
struct Pieces<'a> {
    rest: &'a [u8],
    lengths: std::iter::Cycle<std::vec::IntoIter<usize>>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.lengths.next().unwrap_or(1).min(self.rest.len()).min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest = &self.rest[length..];
        Ok(length)
    }
}

fn split(input: &mut dyn Read, ending: Ending) -> Vec<Bytes> {
    let mut splitter = Splitter::new(ending, usize::MAX);
    let mut records = Vec::new();
    while splitter.records(input, &mut records).unwrap() {}
    assert!(!splitter.records(input, &mut records).unwrap());
    assert_eq!(splitter.count(), records.len() as u64);
    records
}

fn on(delimiter: &[u8]) -> Ending {
    Ending::Delimiter(delimiter.to_vec())
}

/// What splitting means, in the plainest way.
fn reference(input: &[u8], delimiter: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at + delimiter.len() <= input.len() {
        if &input[at..at + delimiter.len()] == delimiter {
            records.push(input[start..at].to_vec());
            at += delimiter.len();
            start = at;
        } else {
            at += 1;
        }
    }
    if start < input.len() {
        records.push(input[start..].to_vec());
    }
    records
}

#[test]
fn lines() {
    for (input, records) in [
        ("", &[][..]),
        ("a", &["a"]),
        ("a\n", &["a"]),
        ("a\nb", &["a", "b"]),
        ("\n", &[""]),
        ("\n\na\n\n", &["", "", "a", ""]),
        ("a\r\n", &["a\r"]),
    ] {
        assert_eq!(split(&mut input.as_bytes(), on(b"\n")), records, "{input:?}");
    }
}

#[test]
fn a_whole_input_is_one_record_even_if_it_is_empty() {
    assert_eq!(split(&mut &b"a\nb\n"[..], Ending::Input), ["a\nb\n"]);
    assert_eq!(split(&mut &b""[..], Ending::Input), [""]);
    let large = vec![b'x'; 3 * CHUNK_BYTES + 1];
    assert_eq!(split(&mut &large[..], Ending::Input), [&large[..]]);
}

#[test]
fn a_line_longer_than_a_chunk() {
    let mut input = vec![b'x'; 5 * CHUNK_BYTES];
    input.push(b'\n');
    input.extend_from_slice(b"y");
    let records = split(&mut &input[..], on(b"\n"));
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].len(), 5 * CHUNK_BYTES);
    assert_eq!(records[1], "y");
}

#[test]
fn a_record_too_long_is_named_and_those_before_it_are_kept() {
    for input in
        [&b"a\nbcd\ntoo long\ne\n"[..], b"a\nbcd\ntoo long", b"a\nbcd\ntoo long and longer"]
    {
        let mut records = Vec::new();
        let mut splitter = Splitter::new(on(b"\n"), 3);
        let mut rest = input;
        let refused = loop {
            match splitter.records(&mut rest, &mut records) {
                Ok(true) => {}
                Ok(false) => panic!("the third line has 8 bytes"),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, SplitError::TooLong { number: 3 }), "{refused:?}");
        assert_eq!(records, ["a", "bcd"]);
    }
}

#[test]
fn an_input_that_fails_is_an_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let refused = Splitter::new(on(b"\n"), 3).records(&mut Broken, &mut Vec::new());
    assert!(matches!(refused, Err(SplitError::Read(_))));
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_records(
        input in proptest::collection::vec(proptest::sample::select(&b"ab\n"[..]), 0..200),
        delimiter in proptest::collection::vec(proptest::sample::select(&b"a\n"[..]), 1..4),
        lengths in proptest::collection::vec(1usize..9, 1..9),
    ) {
        let expected = reference(&input, &delimiter);
        let mut pieces = Pieces { rest: &input, lengths: lengths.into_iter().cycle() };
        prop_assert_eq!(split(&mut pieces, on(&delimiter)), expected.clone());
        prop_assert_eq!(split(&mut &input[..], on(&delimiter)), expected);
    }

    #[test]
    fn lines_joined_again_are_the_input(
        mut input in proptest::collection::vec(any::<u8>(), 0..400),
        lengths in proptest::collection::vec(1usize..50, 1..9),
    ) {
        input.push(b'\n');
        let mut pieces = Pieces { rest: &input, lengths: lengths.into_iter().cycle() };
        let mut joined = Vec::new();
        for record in split(&mut pieces, on(b"\n")) {
            joined.extend_from_slice(&record);
            joined.push(b'\n');
        }
        prop_assert_eq!(joined, input);
    }
}
