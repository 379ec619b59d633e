//! Resources as JSON, for people.

use pillion_xds::json;
use prost_types::Any;
use serde_json::{Map, Value, json};

use super::server::World;
use super::streams::StreamView;
use crate::snapshot::{ResourceSet, ResourceType};

/// All resources of a set by type, with their versions, without secrets.
#[must_use]
pub fn to_json(set: &ResourceSet) -> Value {
    let of_type = |kind: ResourceType| {
        let resources = set.of_type(kind).map(|resource| {
            let type_url = kind.type_url().to_owned();
            let any = Any { type_url, value: resource.body.to_vec() };
            let mut content = json::any_to_json(&any);
            json::redact(&mut content);
            json!({
                "name": resource.name,
                "version": resource.version.to_string(),
                "resource": content,
            })
        });
        (kind.short().to_owned(), Value::Array(resources.collect()))
    };
    Value::Object(ResourceType::ALL.into_iter().map(of_type).collect::<Map<_, _>>())
}

/// What the node of a stream shall have in `world`.
///
/// # Errors
/// When the node has not introduced itself, or cannot be served.
pub fn node_to_json(world: &dyn World, stream: &StreamView) -> Result<Value, String> {
    let node = stream.node.as_deref().ok_or("the node has not introduced itself")?;
    Ok(to_json(&world.resources(node)?))
}

#[cfg(test)]
mod tests {
    use pillion_xds::envoy::extensions::transport_sockets::tls::v3 as tls;
    use prost::Message;

    use super::*;
    use crate::snapshot::Resource;

    #[test]
    fn a_private_key_is_not_shown() {
        let text = r#"{"name": "default", "tls_certificate": {"private_key": {"inline_string": "s3cret"}}}"#;
        let secret: tls::Secret = json::from_text(text).unwrap();
        let body = secret.encode_to_vec();
        let set: ResourceSet =
            [Resource::new(ResourceType::Secret, "default", body)].into_iter().collect();
        let dump = to_json(&set);
        assert_eq!(dump["sds"][0]["name"], "default");
        assert!(!dump.to_string().contains("s3cret"), "{dump}");
        assert_eq!(dump["cds"], json!([]));
    }
}
