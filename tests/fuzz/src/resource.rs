//! Resources as they come over xDS: any bytes become a model or a refusal, twice the same, and what
//! was accepted can be put together.

use pillion_proxy::xds::kind::Kind;
use pillion_proxy::xds::store::Store;
use pillion_proxy::xds::translate;

pub(super) fn target(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(*choice) % Kind::ALL.len()];
    let (name, made) = translate::resource(kind, bytes);
    let (again, made_again) = translate::resource(kind, bytes);
    assert_eq!(name, again, "the same bytes have one name");
    assert_eq!(made.is_ok(), made_again.is_ok(), "the same bytes have one verdict");
    let _ = translate::unknown_fields(kind, bytes);
    match made {
        Ok(resource) => {
            let mut store = Store::default();
            store.accept(resource);
            let _ = store.assemble();
        }
        Err(refused) => assert!(!refused.is_empty(), "a refusal says what is wrong"),
    }
}
