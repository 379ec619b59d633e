//! `pillion install`: what runs Pillion on Kubernetes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::inject::emit;
use crate::install::{self, Settings, helm};

/// What `pillion install` can be told.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// Namespace of the control plane.
    #[arg(long, value_name = "NAME", default_value = "pillion-system", value_parser = label)]
    namespace: String,
    /// Image of the control plane, as `pillion image` makes it.
    #[arg(long, value_name = "IMAGE", required_unless_present_any = ["crds_only", "helm"])]
    image: Option<String>,
    /// Image of the sidecars, likewise.
    #[arg(
        long,
        value_name = "IMAGE",
        env = "PILLION_PROXY_IMAGE",
        required_unless_present_any = ["crds_only", "helm"]
    )]
    proxy_image: Option<String>,
    /// Image of the containers that redirect connections: that of the sidecars, with nft. Default: the same image.
    #[arg(long, value_name = "IMAGE", env = "PILLION_REDIRECT_IMAGE")]
    redirect_image: Option<String>,
    /// How many control planes.
    #[arg(long, value_name = "N", default_value_t = 2)]
    replicas: u16,
    /// Adds a ServiceMonitor for the Prometheus Operator.
    #[arg(long)]
    service_monitor: bool,
    /// Prints the CustomResourceDefinitions only.
    #[arg(long)]
    crds_only: bool,
    /// Writes a Helm chart of the same into this folder, which is new or empty, and prints nothing.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["crds_only", "image", "service_monitor"])]
    helm: Option<PathBuf>,
}

/// Prints the manifests, or writes the chart.
///
/// # Errors
/// The chart cannot be written, or there is something else in its folder.
pub fn run(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.helm {
        write_chart(folder).with_context(|| format!("--helm {}", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let text: Vec<String> = manifests(args).iter().map(emit::yaml).collect();
    std::io::stdout().lock().write_all(text.join("---\n").as_bytes()).context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

fn manifests(args: &InstallArgs) -> Vec<Value> {
    if args.crds_only {
        return install::crds();
    }
    let settings = Settings {
        namespace: args.namespace.clone(),
        image: args.image.clone().unwrap_or_default(),
        proxy_image: args.proxy_image.clone().unwrap_or_default(),
        redirect_image: args.redirect_image.clone().unwrap_or_default(),
        replicas: args.replicas.into(),
    };
    let mut all = install::manifests(&settings);
    if args.service_monitor {
        all.push(install::service_monitor(&settings));
    }
    all
}

fn write_chart(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() && fs::read_dir(folder)?.next().is_some() {
        bail!("the folder is not empty");
    }
    for (name, text) in helm::chart() {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// A namespace's name (RFC 1123 label).
fn label(text: &str) -> Result<String, String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    let expected = "expected at most 63 lower-case letters, digits and `-`";
    if fits { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// A command line of its own, so that this test needs nothing of its siblings.
    #[derive(Parser)]
    struct Install {
        #[command(flatten)]
        args: InstallArgs,
    }

    #[derive(Parser)]
    struct ControlPlane {
        #[command(flatten)]
        args: crate::cli::control_plane::ControlPlaneArgs,
    }

    fn parsed(args: &str) -> Result<InstallArgs, clap::Error> {
        let args = std::iter::once("install").chain(args.split_whitespace());
        Install::try_parse_from(args).map(|install| install.args)
    }

    #[test]
    fn the_deployment_starts_a_control_plane() {
        let args =
            parsed("--namespace mesh --image a/b:1 --proxy-image a/c:1 --replicas 3").unwrap();
        let all = manifests(&args);
        let deployment = all.iter().find(|one| one["kind"] == "Deployment").unwrap();
        assert_eq!(deployment["spec"]["replicas"], 3);
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "a/b:1");
        let words = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
        let started = ControlPlane::try_parse_from(words).unwrap().args;
        assert!(started.kubernetes && started.config.is_none());
        assert!(started.server_names.contains(&"pillion.mesh.svc".to_owned()));
        assert_eq!(started.advertise, "pillion.mesh.svc:15012");
        assert_eq!(started.proxy_image.as_deref(), Some("a/c:1"));
        assert_eq!((started.xds_tls_port, started.webhook_port), (15012, Some(15017)));
    }

    #[test]
    fn flags_say_what_is_printed() {
        assert!(parsed("").unwrap_err().to_string().contains("--image"));
        assert!(parsed("--namespace Nope --crds-only").is_err());
        let crds = manifests(&parsed("--crds-only").unwrap());
        assert!(crds.iter().all(|one| one["kind"] == "CustomResourceDefinition"));
        let monitored = manifests(&parsed("--image a --proxy-image b --service-monitor").unwrap());
        assert_eq!(monitored.iter().filter(|one| one["kind"] == "ServiceMonitor").count(), 1);
    }

    #[test]
    fn a_chart_is_written_into_an_empty_folder_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("chart");
        write_chart(&folder).unwrap();
        assert!(folder.join("Chart.yaml").is_file() && folder.join("crds/meshes.yaml").is_file());
        assert!(write_chart(&folder).unwrap_err().to_string().contains("not empty"));
    }
}
