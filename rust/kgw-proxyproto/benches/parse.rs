//! What a header costs: `cargo bench -p kgw-proxyproto`.

use divan::{Bencher, black_box};
use kgw_proxyproto::{Builder, MeshIdentity, Options, parse};

fn main() {
    divan::main();
}

fn bare() -> Builder {
    Builder::proxy(
        "10.244.0.24:46238".parse().expect("an address"),
        "10.96.0.1:80".parse().expect("an address"),
    )
}

fn curl() -> MeshIdentity<'static> {
    MeshIdentity::new("cluster.local", "default", "curl").expect("an identity")
}

fn ztunnel() -> Builder {
    bare().identity(&curl()).expect("a TLV")
}

fn wire(builder: &Builder, len: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    builder.encode(&mut wire).expect("it fits");
    assert_eq!(wire.len(), len);
    wire
}

fn bench_parse(bencher: Bencher<'_, '_>, wire: &[u8]) {
    let options = Options::default();
    bencher.bench_local(|| {
        // By reference: a returned value would be copied into divan's buffer of outputs.
        let header = parse(black_box(wire), black_box(&options)).expect("a header");
        let _ = black_box(&header);
    });
}

#[divan::bench(sample_size = 1000)]
fn parse_v2_bare_28_bytes(bencher: Bencher<'_, '_>) {
    bench_parse(bencher, &wire(&bare(), 28));
}

#[divan::bench(sample_size = 1000)]
fn parse_v2_ztunnel_72_bytes(bencher: Bencher<'_, '_>) {
    bench_parse(bencher, &wire(&ztunnel(), 72));
}

#[divan::bench(sample_size = 1000)]
fn parse_v2_ztunnel_with_crc32c(bencher: Bencher<'_, '_>) {
    bench_parse(bencher, &wire(&ztunnel().crc32c(true), 79));
}

#[divan::bench(sample_size = 1000)]
fn parse_v1(bencher: Bencher<'_, '_>) {
    bench_parse(bencher, b"PROXY TCP4 10.244.0.24 10.96.0.1 46238 80\r\n");
}

#[divan::bench(sample_size = 1000)]
fn encode_v2_ztunnel(bencher: Bencher<'_, '_>) {
    let header = ztunnel();
    let mut out = Vec::with_capacity(128);
    bencher.bench_local(|| {
        out.clear();
        black_box(&header).encode(black_box(&mut out))
    });
}

#[divan::bench(sample_size = 1000)]
fn build_and_encode_v2_ztunnel(bencher: Bencher<'_, '_>) {
    let mut out = Vec::with_capacity(128);
    bencher.bench_local(|| {
        out.clear();
        bare()
            .identity(black_box(&curl()))
            .and_then(|header| header.encode(black_box(&mut out)))
    });
}
