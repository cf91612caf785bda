//! WebSocket frames as no client would send them.

/// The text bit and the final bit of a frame's first byte.
pub const TEXT: u8 = 0x81;
pub const PING: u8 = 0x89;

/// A masked frame with any first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 11, 13, 17];
    let mut out = head(first, payload.len() as u64, true);
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A frame without a mask, as only servers send them.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = head(first, payload.len() as u64, false);
    out.extend(payload);
    out
}

/// The beginning of a frame that says how long it is, up to the mask.
pub fn head(first: u8, length: u64, masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut out = vec![first];
    match length {
        0..126 => out.push(bit | length as u8),
        126..65_536 => {
            out.push(bit | 126);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(bit | 127);
            out.extend(length.to_be_bytes());
        }
    }
    out
}
