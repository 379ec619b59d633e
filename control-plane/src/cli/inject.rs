//! `pillion inject`: manifests with sidecars, without a cluster.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::inject::{self, Join, Options, Outcome, emit};

/// What `pillion inject` can be told.
#[derive(Debug, clap::Args)]
pub struct InjectArgs {
    /// File with Kubernetes manifests in YAML or JSON, or - for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Image of the sidecar, as `pillion image` makes it.
    #[arg(long, value_name = "IMAGE", env = "PILLION_PROXY_IMAGE")]
    image: String,
    /// Image of the container that redirects connections: the same, with nft. Default: --image.
    #[arg(long, value_name = "IMAGE", env = "PILLION_REDIRECT_IMAGE")]
    redirect_image: Option<String>,
    /// Where sidecars reach the control plane.
    #[arg(long, value_name = "HOST:PORT", default_value = "pillion.pillion-system.svc:15012")]
    control_plane: String,
    /// Join by a join token: the Secret, in the namespace of the pods, with it at its key join-token. Default: by the
    /// pod's service account, with a control plane on the same cluster.
    #[arg(long, value_name = "NAME")]
    token_secret: Option<String>,
}

/// Prints the manifests with sidecars in them. Nothing is printed if anything is wrong.
///
/// # Errors
/// The file cannot be read, or a document cannot be injected; the text says which and why.
pub fn run(args: InjectArgs) -> anyhow::Result<ExitCode> {
    let place = args.file.display().to_string();
    let text = if place == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {place}"))?
    };
    let options = Options {
        image: args.image,
        redirect_image: args.redirect_image,
        control_plane: args.control_plane,
        join: args.token_secret.map_or(Join::ServiceAccount, Join::Secret),
    };
    let (text, outcomes) = inject_text(&text, &options).with_context(|| place)?;
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot print")?;
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    eprintln!(
        "pillion: {} injected, {} already, {} opted out, {} without pods",
        count(Outcome::Injected),
        count(Outcome::Already),
        count(Outcome::OptedOut),
        count(Outcome::NoPods)
    );
    Ok(ExitCode::SUCCESS)
}

/// All documents of a file.
fn inject_text(text: &str, options: &Options) -> anyhow::Result<(String, Vec<Outcome>)> {
    let mut documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("{error}"))?;
    documents.retain(|document| !document.is_null());
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for (index, document) in documents.iter_mut().enumerate() {
        match inject::inject(document, options) {
            Ok(outcomes) => all.extend(outcomes),
            Err(error) => problems.push(format!("document {}: {error}", index + 1)),
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let texts: Vec<String> = documents.iter().map(emit::yaml).collect();
    Ok((texts.join("---\n"), all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_injected_once_and_not_twice() {
        let text = include_str!("../../../examples/kubernetes/shop.yaml");
        let options = Options {
            image: "pillion-proxy:test".to_owned(),
            redirect_image: None,
            control_plane: "pillion.pillion-system.svc:15012".to_owned(),
            join: Join::Secret("pillion-join-token".to_owned()),
        };
        let (once, outcomes) = inject_text(text, &options).unwrap();
        let injected = outcomes.iter().filter(|one| **one == Outcome::Injected).count();
        assert_eq!(injected, text.matches("\nkind: Deployment").count());
        assert!(injected >= 2, "{outcomes:?}");
        let (twice, outcomes) = inject_text(&once, &options).unwrap();
        assert_eq!(once, twice);
        assert!(!outcomes.contains(&Outcome::Injected) && outcomes.contains(&Outcome::Already));
    }

    #[test]
    fn every_problem_is_told_with_its_document() {
        let pod = "kind: Pod\nmetadata: {name: a, labels: {app: a}}\n\
                   spec: {hostNetwork: true, containers: [{name: a}]}\n";
        let options = Options {
            image: "i".into(),
            redirect_image: None,
            control_plane: "c:1".into(),
            join: Join::ServiceAccount,
        };
        let error = inject_text(&format!("{pod}---\n{pod}"), &options).unwrap_err().to_string();
        assert!(error.contains("document 1: Pod a: spec.hostNetwork"), "{error}");
        assert!(error.contains("document 2: Pod a: spec.hostNetwork"), "{error}");
    }
}
