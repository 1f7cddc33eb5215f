//! Any bytes: no panic, one verdict however they are cut, and what is accepted can be written again.
#![no_main]

use kgw_proxyproto::{Builder, Command, Error, Options, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let options = Options {
        max_header: 16 + 65_535,
        ..Options::default()
    };
    let whole = parse(data, &options);
    let first = (0..=data.len().min(300))
        .map(|cut| parse(&data[..cut], &options))
        .find(|result| !matches!(result, Err(Error::Incomplete { .. })));
    if let Some(first) = first {
        assert_eq!(first, whole);
    }
    match whole {
        Ok(header) => {
            assert!(header.len() <= data.len());
            let ssl = header.tlvs.ssl();
            assert_eq!(ssl.is_some(), header.tlvs.get(0x20).is_some());
            let builder = Builder::from(&header);
            let mut wire = Vec::new();
            builder.encode(&mut wire).expect("it was in a header");
            let again = parse(&wire, &options).expect("it was just written");
            assert_eq!(Builder::from(&again), builder);
            assert_eq!(again.identity(), header.identity());
            assert!(header.command == Command::Proxy || again.tlvs.is_empty());
        }
        Err(Error::Incomplete { need }) => assert!(need > data.len()),
        Err(_) => {}
    }
});
