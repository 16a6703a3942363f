use super::*;
use proptest::prelude::*;

fn sample(length: u64, block_size: u64) -> CascadeFile {
    let geometry = Geometry::new(length, block_size).expect("a valid geometry");
    let hashes = (0..geometry.blocks())
        .map(|block| BlockHash::of(&block.to_be_bytes()))
        .collect();
    CascadeFile::new(geometry, FileHash::of(b"data"), hashes)
}

#[test]
fn the_example_of_the_protocol_has_576_bytes() {
    let file = sample(1000, 64);
    assert_eq!(file.geometry().blocks(), 16);
    assert_eq!(file.encode().len(), 576);
    assert_eq!(file.geometry().block_length(15), 40);
    assert_eq!(file.geometry().range(16), None);
}

#[test]
fn an_empty_file_has_no_block_and_a_bare_header() {
    let file = sample(0, 65536);
    assert_eq!(file.encode().len(), 64);
    assert_eq!(CascadeFile::parse(&file.encode()), Ok(file));
}

#[test]
fn lengths_near_the_end_of_the_number_range_are_refused_without_overflow() {
    let mut bytes = sample(1000, 64).encode();
    bytes[16..24].fill(0xff);
    assert!(matches!(
        CascadeFile::parse(&bytes),
        Err(FormatError::TooManyBlocks(_))
    ));
    bytes[24..32].fill(0xff);
    assert!(matches!(
        CascadeFile::parse(&bytes),
        Err(FormatError::HashCount { blocks: 1, .. })
    ));
    let geometry = Geometry::new(u64::MAX, u64::MAX - 1).expect("two blocks");
    assert_eq!(geometry.range(1), Some(u64::MAX - 1..u64::MAX));
    bytes[24..32].fill(0);
    assert_eq!(CascadeFile::parse(&bytes), Err(FormatError::ZeroBlockSize));
}

#[test]
fn the_default_block_size_follows_the_length() {
    const MIB: u64 = 1 << 20;
    for (length, size) in [
        (0, 65536),
        (64 * MIB, 65536),
        (64 * MIB + 1, 131_072),
        (4096 * MIB, 4 * MIB),
        (1 << 40, 4 * MIB),
    ] {
        assert_eq!(default_block_size(length), size, "{length}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back_and_nothing_shorter_or_longer_does(
        length in 0u64..5000, block_size in 1u64..600, reserved: [u8; 8], extra in 1usize..70,
    ) {
        let mut file = sample(length, block_size);
        file.reserved = reserved;
        let mut bytes = file.encode();
        prop_assert_eq!(CascadeFile::parse(&bytes), Ok(file.clone()));
        prop_assert_eq!(CascadeHash::of(&bytes), file.hash());
        for cut in 0..bytes.len() {
            prop_assert!(CascadeFile::parse(&bytes[..cut]).is_err());
        }
        bytes.resize(bytes.len() + extra, 0);
        prop_assert!(CascadeFile::parse(&bytes).is_err());
    }

    #[test]
    fn the_blocks_cover_the_file_without_gap_or_overlap(length in 0u64..5000, block_size in 1u64..600) {
        let geometry = Geometry::new(length, block_size).expect("valid");
        let mut end = 0;
        for block in 0..geometry.blocks() {
            let range = geometry.range(block).expect("in range");
            prop_assert_eq!(range.start, end);
            prop_assert!(range.end > range.start);
            end = range.end;
        }
        prop_assert_eq!(end, length);
    }
}
