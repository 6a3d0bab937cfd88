//! RFC 7541: header compression. Both sides keep a table, so an error in it ends the connection.

use super::*;

/// Why an error of HPACK ends the connection with another code.
pub(super) const CODE: &str =
    "the h2 crate says PROTOCOL_ERROR where its decoder fails, not COMPRESSION_ERROR";

/// HEADERS with this block, of a request without :path and then these bytes.
fn head(stream: u32, rest: &[u8]) -> Vec<u8> {
    // :method GET and :scheme http of the static table.
    let block = [&[0x82, 0x86][..], &block(&[(":authority", "app")]), rest].concat();
    frame(HEADERS, WHOLE, stream, &block)
}

#[tokio::test]
async fn header_compression() {
    /// :path / of the static table.
    const PATH: u8 = 0x84;
    let bad = |section, what, rest: &[u8]| {
        case(section, what, &[head(1, &[&[PATH], rest].concat())], end(COMPRESSION)).but(PROTOCOL, CODE)
    };
    let fine = |section, what, rest: &[u8]| {
        case(section, what, &[head(1, &[&[PATH], rest].concat())], Must::Answer(1))
    };
    // x-a: 1, put into the dynamic table, where it is number 62.
    let indexed = [0x40, 3, b'x', b'-', b'a', 1, b'1'];
    let first = |block: &[u8]| frame(HEADERS, WHOLE, 1, block);
    let resized = |sizes: &[u8]| [sizes, &[0x82, 0x86, PATH], &block(&[("host", "app")])].concat();
    hold(vec![
        fine("2.3.1", "fields of the static table", &[0x90]),
        fine(
            "6.2.1",
            "a field that is put into the table, and its number",
            &[&indexed[..], &[0xbe]].concat(),
        ),
        case(
            "2.3.2",
            "the table outlives its block",
            &[head(1, &[&[PATH], &indexed[..]].concat()), head(3, &[PATH, 0xbe])],
            Must::Answer(3),
        ),
        bad("2.3.3", "a number that the tables do not have", &[0xbe]),
        bad("2.3.3", "a number far beyond", &[0xff, 0x80, 0x80, 1]),
        bad("2.3.3", "a name's number that the tables do not have", &[0x7f, 0, 1, b'1']),
        bad("6.1", "number 0", &[0x80]),
        case("4.2", "a size of the table at the start", &[first(&resized(&[0x20]))], Must::Answer(1)),
        case("4.2", "two of them", &[first(&resized(&[0x20, 0x3f, 0x81, 0x1f]))], Must::Answer(1)),
        bad("4.2", "a size of the table behind a field", &[0x20]),
        case("6.3", "a size larger than allowed", &[first(&resized(&[0x3f, 0xe2, 0x1f]))], end(COMPRESSION))
            .but(PROTOCOL, CODE),
        case(
            "4.4",
            "a field too large for the table empties it",
            &[too_large(), head(3, &[PATH, 0xbe])],
            end(COMPRESSION),
        )
        .but(PROTOCOL, CODE),
        bad("5.1", "an integer without end", &[0xff; 12]),
        bad("5.1", "an integer that the block cuts", &[0x7f]),
        bad("5.2", "a text longer than the block", &[0, 3, b'x', b'-', b'a', 9, b'1']),
        fine("5.2", "a text in Huffman's code", &[0, 3, b'x', b'-', b'a', 0x81, 0x0f]),
        bad("5.2", "more than 7 bits of padding", &[0, 3, b'x', b'-', b'a', 0x82, 0x0f, 0xff]),
        bad("5.2", "padding that is not ones", &[0, 3, b'x', b'-', b'a', 0x81, 0x08]),
        bad("5.2", "the end symbol", &[0, 3, b'x', b'-', b'a', 0x84, 0xff, 0xff, 0xff, 0xff]),
        fine("6.2.2", "a field that is not put into the table", &[0, 3, b'x', b'-', b'a', 1, b'1']),
        fine("6.2.3", "a field that never may be", &[0x10, 3, b'x', b'-', b'a', 1, b'1']),
        case("2.2", "each side has its own table", &[request(1), request(3), request(5)], Must::Answer(5)),
    ])
    .await;
}

/// A request with a field in the table, and one of 5,000 bytes behind it, which drives it out.
fn too_large() -> Vec<u8> {
    let small = [0x40, 3, b'x', b'-', b'a', 1, b'1'];
    // 5,000 as a length: 127, then 4,873 in groups of 7 bits.
    let large = [&[0x40, 3, b'x', b'-', b'b', 0x7f, 0x89, 0x26][..], &[b'v'; 5000]].concat();
    head(1, &[&[0x84], &small[..], &large].concat())
}
