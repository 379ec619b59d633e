//! Writes the seeds of the target `resource`: every static resource of the seeds of `bootstrap`.

use std::fs;
use std::path::Path;

use pillion_proxy::xds::kind::Kind;
use pillion_xds::envoy::config::bootstrap::v3::Bootstrap;
use pillion_xds::json;
use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for file in fs::read_dir(seeds.join("bootstrap"))? {
        let file = file?.path();
        let message: Bootstrap = json::from_text(&fs::read_to_string(&file)?)?;
        let Some(resources) = message.static_resources else { continue };
        let from = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut all = Vec::new();
        all.extend(resources.listeners.iter().map(|m| (Kind::Listener, m.encode_to_vec())));
        all.extend(resources.clusters.iter().map(|m| (Kind::Cluster, m.encode_to_vec())));
        all.extend(resources.secrets.iter().map(|m| (Kind::Secret, m.encode_to_vec())));
        for cluster in &resources.clusters {
            let endpoints = cluster.load_assignment.iter();
            all.extend(endpoints.map(|m| (Kind::Endpoints, m.encode_to_vec())));
        }
        for (number, (kind, bytes)) in all.into_iter().enumerate() {
            let choice = Kind::ALL.iter().position(|one| *one == kind).unwrap_or_default();
            let mut seed = vec![u8::try_from(choice)?];
            seed.extend(bytes);
            fs::write(seeds.join("resource").join(format!("{from}-{number}")), seed)?;
        }
    }
    Ok(())
}
