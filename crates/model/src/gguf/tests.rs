use super::*;
use proptest::prelude::*;

/// Writes little GGUF files.
#[derive(Clone)]
struct Writer(Vec<u8>);

impl Writer {
    fn new(version: u32, tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec())
            .u32(version)
            .u64(tensors)
            .u64(entries)
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }
    fn entry_u32(self, key: &str, value: u32) -> Self {
        self.text(key).u32(4).u32(value)
    }
    fn tensor(self, name: &str, sizes: &[u64], dtype: u32, offset: u64) -> Self {
        let head = self.text(name).u32(u32::try_from(sizes.len()).unwrap());
        sizes
            .iter()
            .fold(head, |writer, size| writer.u64(*size))
            .u32(dtype)
            .u64(offset)
    }
    fn data(mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32), 0);
        self.bytes(bytes).0
    }
    fn open(self, data: &[u8]) -> Result<GgufFile, ModelError> {
        GgufFile::from_vec(self.data(data))
    }
}

/// Two metadata entries, two tensors: `a` (2, 3) f32 and `b` (1, 32) q8_0.
fn sample() -> Vec<u8> {
    Writer::new(3, 2, 3)
        .entry_u32("n", 7)
        .text("words")
        .u32(9)
        .u32(8)
        .u64(2)
        .text("x")
        .text("yz")
        .text("f")
        .u32(6)
        .u32(1.5f32.to_bits())
        .tensor("a", &[3, 2], 0, 0)
        .tensor("b", &[32, 1], 8, 32)
        .data(&(0..66).collect::<Vec<u8>>())
}

fn message(result: Result<GgufFile, ModelError>) -> String {
    result.expect_err("the file is bad").to_string()
}

#[test]
fn reads_what_was_written() {
    let file = GgufFile::from_vec(sample()).unwrap();
    assert_eq!(file.u32("n").unwrap(), 7);
    assert_eq!(file.f32("f").unwrap(), 1.5);
    assert_eq!(file.strings("words").unwrap(), ["x", "yz"]);
    let a = file.tensor("a").unwrap();
    assert_eq!(
        (a.shape.as_slice(), a.elem_count(), a.size_in_bytes()),
        (&[2, 3][..], 6, 24)
    );
    assert_eq!(file.tensor_bytes(a).unwrap()[..3], [0, 1, 2]);
    let b = file.tensor("b").unwrap();
    assert_eq!(file.tensor_bytes(b).unwrap(), (32..66).collect::<Vec<u8>>());
    assert_eq!(file.dtype(b).unwrap(), GgmlDType::Q8_0);
}

#[test]
fn look_ups_name_key_expectation_and_value() {
    let file = GgufFile::from_vec(sample()).unwrap();
    let check = |error: ModelError, words: &[&str]| {
        let text = error.to_string();
        for word in words.iter().chain(&["<embedded>"]) {
            assert!(text.contains(word), "{text} lacks {word}");
        }
    };
    check(
        file.str("n").unwrap_err(),
        &["n: expected a string", "the integer 7"],
    );
    check(
        file.u32("words").unwrap_err(),
        &["words", "an array of 2 strings"],
    );
    check(file.u32("f").unwrap_err(), &["the float 1.5"]);
    check(file.bool_opt("n").unwrap_err(), &["a bool"]);
    check(
        file.u32("gone").unwrap_err(),
        &["gone is missing", "unsigned integer"],
    );
    check(file.tensor("c").unwrap_err(), &["c is missing"]);
    assert_eq!(file.u32_opt("gone").unwrap(), None);
}

#[test]
fn truncation_anywhere_is_an_error() {
    let whole = sample();
    for length in 0..whole.len() {
        let text = message(GgufFile::from_vec(whole[..length].to_vec()));
        assert!(text.contains("truncated while reading"), "{length}: {text}");
    }
}

#[test]
fn lying_lengths_are_refused_without_allocating() {
    let check = |writer: Writer, words: &str| {
        let text = message(GgufFile::from_vec(writer.0));
        assert!(text.contains(words), "{text} lacks {words}");
    };
    let huge = u64::MAX;
    check(Writer::new(3, 0, huge), "reading the metadata");
    check(Writer::new(3, huge, 0), "reading the tensor descriptions");
    check(
        Writer::new(3, 0, 1).u64(huge).bytes(&[0; 16]),
        "the key of metadata entry 0",
    );
    check(Writer::new(3, 0, 1).text("k").u32(8).u64(huge), "reading k");
    for element in [0, 4, 8, 9, 12] {
        check(
            Writer::new(3, 0, 1)
                .text("k")
                .u32(9)
                .u32(element)
                .u64(huge >> 1),
            "reading k",
        );
    }
    let nested = (0..6).fold(Writer::new(3, 0, 1).text("k").u32(9), |w, _| {
        w.u32(9).u64(1)
    });
    check(nested.bytes(&[0; 64]), "nested at most 4");
}

/// Files as large as they claim to be, but with holes: what they promise must not be reserved.
#[cfg(unix)]
#[test]
fn promises_of_a_large_file_are_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m-00001-of-4000000000.gguf");
    let check = |writer: Writer, words: &str| {
        std::fs::write(&path, writer.0).unwrap();
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        let text = message(GgufFile::open(&path));
        assert!(text.contains(words), "{text} lacks {words}");
    };
    check(Writer::new(3, 0, 1 << 36), "each key once");
    check(Writer::new(3, 1 << 35, 0), "dimensions");
    let array = |element: u32, count: u64| {
        Writer::new(3, 0, 1)
            .text("k")
            .u32(9)
            .u32(element)
            .u64(count)
    };
    check(array(0, 1 << 39), "at most 33554432 elements");
    check(array(8, 1 << 36), "at most 33554432 elements");
    let parts = Writer::new(3, 0, 1).entry_u32("split.count", 4_000_000_000);
    check(parts, "m-00002-of-4000000000.gguf is missing");
}

#[test]
fn contradictions_are_refused_by_name() {
    let check = |file: Result<GgufFile, ModelError>, words: &str| {
        let text = message(file);
        assert!(text.contains(words), "{text} lacks {words}");
    };
    check(
        GgufFile::from_vec(b"GGML____".to_vec()),
        "magic number: expected GGUF",
    );
    check(
        Writer::new(1, 0, 0).open(&[]),
        "version: expected 2 or 3, got 1",
    );
    check(Writer::new(0x0300_0000, 0, 0).open(&[]), "a big-endian one");
    check(
        Writer::new(3, 0, 2)
            .entry_u32("k", 1)
            .entry_u32("k", 1)
            .open(&[]),
        "k: expected each",
    );
    check(
        Writer::new(3, 0, 1).text("k").u32(13).u32(0).open(&[]),
        "type from 0 to 12, got 13",
    );
    check(
        Writer::new(3, 0, 1).text("k").u32(7).bytes(&[2]).open(&[]),
        "a bool",
    );
    check(
        Writer::new(3, 0, 1)
            .text("k")
            .u32(8)
            .u64(1)
            .bytes(&[255])
            .open(&[]),
        "UTF-8",
    );
    check(
        Writer::new(3, 0, 1)
            .entry_u32("general.alignment", 3)
            .open(&[]),
        "a power of two",
    );
    let tensor = |sizes: &[u64], dtype, offset| {
        Writer::new(3, 1, 0)
            .tensor("t", sizes, dtype, offset)
            .open(&[0; 64])
    };
    check(tensor(&[1, 1, 1, 1, 1], 0, 0), "1 to 4 dimensions, got 5");
    check(tensor(&[0], 0, 0), "sizes above 0");
    check(tensor(&[1 << 40, 1 << 40], 0, 0), "a countable number");
    check(tensor(&[1 << 62], 0, 0), "a countable number");
    check(tensor(&[4], 0, 7), "aligned to 32");
    check(tensor(&[33], 8, 0), "a multiple of 32");
    check(tensor(&[17], 0, 0), "the data of tensor t");
    check(tensor(&[1], 0, u64::MAX - 31), "the data of tensor t");
    let twice = Writer::new(3, 2, 0)
        .tensor("t", &[1], 0, 0)
        .tensor("t", &[1], 0, 32);
    check(twice.open(&[0; 64]), "t: expected each tensor once");
}

#[test]
fn an_unknown_type_matters_only_when_used() {
    let writer = Writer::new(3, 2, 0)
        .tensor("odd", &[256], 22, 0)
        .tensor("t", &[1], 0, 32);
    let file = writer.open(&[1; 64]).unwrap();
    assert!(file.tensor_bytes(file.tensor("t").unwrap()).is_ok());
    let error = file
        .tensor_bytes(file.tensor("odd").unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tensor odd") && error.contains("22"),
        "{error}"
    );
}

#[test]
fn mapped_files_can_be_released_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let data: Vec<u8> = (0..1 << 20).map(|index| (index % 251) as u8).collect();
    let writer = Writer::new(2, 1, 0).tensor("t", &[1 << 18], 0, 0);
    std::fs::write(&path, writer.data(&data)).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let tensor = file.tensor("t").unwrap();
    assert_eq!(file.tensor_bytes(tensor).unwrap(), data);
    file.release(tensor);
    file.release_all();
    assert_eq!(file.tensor_bytes(tensor).unwrap(), data);
    let error = GgufFile::open(folder.path().join("none.gguf"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot open") && error.contains("none.gguf"),
        "{error}"
    );
    assert!(GgufFile::open(folder.path()).is_err());
}

fn part(number: u32, count: u32, total: u32, tensor: &str) -> Vec<u8> {
    Writer::new(3, 1, 3)
        .entry_u32("split.no", number)
        .entry_u32("split.count", count)
        .entry_u32("split.tensors.count", total)
        .tensor(tensor, &[1], 0, 0)
        .data(&[u8::try_from(number).unwrap() + 1, 0, 0, 0])
}

#[test]
fn split_files_are_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = |number: u32| folder.path().join(format!("m-{number:05}-of-00002.gguf"));
    let write = |number: u32, bytes: Vec<u8>| std::fs::write(path(number), bytes).unwrap();
    let failure = || GgufFile::open(path(1)).unwrap_err().to_string();
    write(1, part(0, 2, 2, "a"));
    let text = failure();
    assert!(text.contains("m-00002-of-00002.gguf is missing"), "{text}");
    write(2, part(1, 2, 2, "b"));
    let file = GgufFile::open(path(1)).unwrap();
    assert_eq!(
        file.tensor_bytes(file.tensor("b").unwrap()).unwrap(),
        [2, 0, 0, 0]
    );
    assert_eq!(file.paths().count(), 2);
    let second = GgufFile::open(path(2)).unwrap_err().to_string();
    assert!(second.contains("the first part"), "{second}");
    write(2, part(1, 2, 2, "a"));
    assert!(failure().contains("each tensor once"));
    write(2, part(0, 2, 2, "b"));
    assert!(failure().contains("split.no: expected 1, got 0"));
    write(2, part(1, 2, 2, "b"));
    write(1, part(0, 2, 3, "a"));
    assert!(failure().contains("split.tensors.count"));
}

proptest! {
    #[test]
    fn damaged_files_never_panic(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..4)) {
        let mut bytes = sample();
        for (place, value) in changes {
            let place = place % bytes.len();
            bytes[place] = value;
        }
        if let Ok(file) = GgufFile::from_vec(bytes) {
            for info in file.tensors().values() {
                let _ = file.tensor_bytes(info);
            }
        }
    }
}
