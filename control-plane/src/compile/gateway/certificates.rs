//! Which certificates the listeners of gateways use, and where the proxy finds them.
//!
//! Private keys do not travel: a proxy on another machine is told the names of files on its own. Only a gateway that
//! runs in this very process gets a key that stands in a Secret.

use std::collections::BTreeMap;

use pillion_xds::envoy::config::core::v3::DataSource;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret};

use super::super::node::GatewayProxy;
use super::super::proto::{file, inline};
use super::super::shape::Shape;
use crate::intent::{self, CertificateSource, Gateway, Name};

/// The certificates that are used so far.
pub(super) struct Certificates<'a> {
    shape: &'a Shape,
    proxy: &'a GatewayProxy,
    used: BTreeMap<Name, Secret>,
    warnings: Vec<String>,
}

impl<'a> Certificates<'a> {
    pub(super) fn new(shape: &'a Shape, proxy: &'a GatewayProxy) -> Self {
        Self { shape, proxy, used: BTreeMap::new(), warnings: Vec::new() }
    }

    /// The names of a listener's secrets. `None`: not one of them can be had, and it cannot be served.
    pub(super) fn of(
        &mut self,
        gateway: &Gateway,
        listener: &intent::Listener,
    ) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for name in &listener.certificates {
            match self.sources(name) {
                Ok((chain, key)) => {
                    let made = secret(name, chain, key);
                    names.push(made.name.clone());
                    self.used.insert(name.clone(), made);
                }
                Err(why) => {
                    let place = format!("Gateway {}, listener `{}`", gateway.name, listener.name);
                    self.warnings.push(format!("{place}: {why}"));
                }
            }
        }
        if names.is_empty() {
            let place = format!("Gateway {}, listener `{}`", gateway.name, listener.name);
            self.warnings.push(format!("{place}: it has no certificate, and is left out"));
            return None;
        }
        Some(names)
    }

    /// All secrets, and what is wrong.
    pub(super) fn finish(self) -> (Vec<Secret>, Vec<String>) {
        (self.used.into_values().collect(), self.warnings)
    }

    fn sources(&self, name: &Name) -> Result<(DataSource, DataSource), String> {
        let source = self.shape.intent.secrets.get(name).and_then(|secret| secret.source.as_ref());
        match (source, &self.proxy.certificate_dir) {
            (Some(CertificateSource::Files { chain, key }), _) => Ok((file(chain), file(key))),
            (Some(CertificateSource::Inline { chain, key }), _) if self.proxy.is_here => {
                Ok((inline(chain.clone()), inline(key.pem().to_owned())))
            }
            (_, Some(folder)) => {
                let folder =
                    format!("{}/{}/{}", folder.trim_end_matches('/'), name.namespace, name.name);
                Ok((file(&format!("{folder}/tls.crt")), file(&format!("{folder}/tls.key"))))
            }
            (Some(CertificateSource::Inline { .. }), None) => Err(format!(
                "the key of Secret {name} does not leave the control plane: give the gateway its files (annotations pillion.io/cert-file and key-file, or --certificate-dir)"
            )),
            (None, None) => Err(format!("there is no Secret {name}, and no --certificate-dir")),
        }
    }
}

fn secret(name: &Name, chain: DataSource, key: DataSource) -> Secret {
    Secret {
        name: format!("certificate|{name}"),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(chain),
            private_key: Some(key),
            ..TlsCertificate::default()
        })),
    }
}
