//! The byte alphabet of byte-level BPE: each byte has a printable character.
//!
//! Source: Radford et al. 2019 (GPT-2), `bytes_to_unicode`.

/// True for bytes that are written as themselves.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The byte that `character` stands for; the bytes that cannot be written as themselves are
/// numbered from U+0100 in ascending order.
pub(super) fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match u8::try_from(code) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => {
            let number = usize::try_from(code - 0x100).ok()?;
            (0..=255u8).filter(|byte| !is_printable(*byte)).nth(number)
        }
    }
}

/// The bytes of a token, or `None` if a character stands for no byte.
pub(super) fn bytes_of(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_covers_each_byte_once() {
        let mut bytes: Vec<u8> = ('\0'..'\u{200}').filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(bytes_of("ĠaĊ").unwrap(), b" a\n");
        assert_eq!(bytes_of("a b"), None);
    }
}
