//! Compiles `proto/` with protox, so that no `protoc` has to be installed: Rust types and gRPC
//! services by prost and tonic, and a descriptor set that keeps our field options.

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use prost_reflect::DescriptorPool;

#[path = "build/schema.rs"]
mod schema;

/// Messages that may hold keys or tokens; `src/debug.rs` has their `Debug`.
const SECRETIVE: [&str; 6] = [
    ".envoy.config.core.v3.DataSource",
    ".envoy.config.core.v3.HeaderValue",
    ".envoy.config.core.v3.TransportSocket",
    ".envoy.service.discovery.v3.DeltaDiscoveryResponse",
    ".envoy.service.discovery.v3.DiscoveryResponse",
    ".envoy.service.discovery.v3.Resource",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(proto_files(root)?)?;
    let with_comments = compiler.file_descriptor_set();
    compiler.include_source_info(false);
    // A quarter of the size; most runs of the programs never look at it.
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&compiler.encode_file_descriptor_set())?;
    fs::write(out.join("descriptors.bin.z"), packed.finish()?)?;
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice())?;
    fs::write(out.join("schema.rs"), schema::written(&pool)?)?;

    let mut config = prost_build::Config::new();
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    config.skip_debug(SECRETIVE);
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("xds.rs")
        .compile_fds_with_config(with_comments, config)?;
    Ok(())
}

/// Every `.proto` below `dir`, in a fixed order.
fn proto_files(dir: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
