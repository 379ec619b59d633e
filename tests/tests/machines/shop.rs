//! The shop on three machines, under load from outside: upgraded, and with a link that is cut, and slow.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use pillion_tests::process::Process;
use pillion_tests::venv::optional;
use pillion_tests::wait;

use super::load::Load;
use super::world::{Instance, Part, World, front, warm};

const WEB: Part = Part { service: "web", version: "v1" };
const CATALOG_1: Part = Part { service: "catalog", version: "v1" };
const CATALOG_2: Part = Part { service: "catalog", version: "v2" };
const REVIEWS: Part = Part { service: "reviews", version: "v1" };
const PRICING: Part = Part { service: "pricing", version: "v1" };
const CART: Part = Part { service: "cart", version: "v1" };

/// What runs where. Every service is on the first two machines, most are on the third as well.
const PLACES: [(usize, &str, Part); 13] = [
    (0, "web-1", WEB),
    (0, "catalog-v1-1", CATALOG_1),
    (0, "catalog-v2-1", CATALOG_2),
    (0, "pricing-1", PRICING),
    (0, "reviews-1", REVIEWS),
    (1, "web-2", WEB),
    (1, "catalog-v1-2", CATALOG_1),
    (1, "catalog-v2-2", CATALOG_2),
    (1, "cart-2", CART),
    (2, "catalog-v1-3", CATALOG_1),
    (2, "pricing-3", PRICING),
    (2, "reviews-3", REVIEWS),
    (2, "cart-3", CART),
];

/// The third machine is out of reach this long: longer than a lease.
const CUT: Duration = Duration::from_secs(14);

/// The long way to the third machine, in milliseconds.
const DELAY: u32 = 200;

/// The shop, and its door on the first machine.
struct Shop {
    world: World,
    instances: Vec<Instance>,
    _front: (Process, Process),
    load: Load,
}

#[tokio::test]
async fn upgrades_fail_no_request_and_cut_links_heal() -> anyhow::Result<()> {
    let Some(world) = optional("network namespaces", World::start().await)? else {
        return Ok(());
    };
    let mut shop = Shop::open(world).await?;
    shop.everybody_is_where_it_runs()?;
    let tally = shop.load.all_good("before any change", 100).await?;
    ensure!(tally.seen.len() == 2, "both instances of web have a share: {:?}", tally.seen);
    shop.upgrade(CATALOG_1).await?;
    shop.upgrade(WEB).await?;
    let tally = shop.load.all_good("after the upgrades", 100).await?;
    ensure!(tally.seen.iter().all(|name| name.ends_with("-new")), "{:?}", tally.seen);
    shop.cut().await?;
    shop.slow().await
}

impl Shop {
    async fn open(mut world: World) -> anyhow::Result<Self> {
        let mut instances = Vec::new();
        for (number, name, part) in PLACES {
            instances.push(world.instance(number, part, name)?);
        }
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/systemd/front.yaml");
        let more = ["--outbound-port", "15001"];
        let (sidecar, ports) = world.sidecar(0, ("front", "front-1"), &more)?;
        warm(&world.machines[0], &sidecar, ports.admin).await?;
        let door = front(&world.machines[0], &example, &world.folder(0))?;
        for instance in &instances {
            instance.warm().await?;
            world.known(&instance.name, true).await?;
        }
        let address = SocketAddr::from((world.machines[0].address(), 8080));
        let load = Load::start(&world.outside, address)?;
        let last = std::cell::RefCell::default();
        let opened = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let tally = load.take();
            let open = tally.bad.is_empty() && tally.good > 10;
            last.replace(tally);
            open.then_some(())
        };
        let open = wait::until("the shop is open", opened).await;
        open.with_context(|| format!("{:?}", last.borrow()))?;
        Ok(Self { world, instances, _front: (sidecar, door), load })
    }

    /// Nobody said an address: it is the one that leads to the control plane.
    fn everybody_is_where_it_runs(&self) -> anyhow::Result<()> {
        for (number, name, _) in PLACES {
            let expected = self.world.machines[number].address();
            let found = self.world.advertised(name)?;
            ensure!(found == Some(expected.into()), "{name}: {found:?}, expected {expected}");
        }
        Ok(())
    }

    /// On each machine in turn: the new instance takes traffic, then the old one goes.
    async fn upgrade(&mut self, part: Part) -> anyhow::Result<()> {
        let places = PLACES
            .iter()
            .filter(|(_, _, one)| (one.service, one.version) == (part.service, part.version));
        for (number, name, _) in places {
            let fresh = self.world.instance(*number, part, &format!("{name}-new"))?;
            fresh.warm().await?;
            self.world.known(&fresh.name, true).await?;
            let at = self.instances.iter().position(|one| one.name == *name);
            let old = self.instances.swap_remove(at.expect("it was started"));
            old.retire().await?;
            self.instances.push(fresh);
            self.load.all_good(&format!("{name} is replaced"), 30).await?;
        }
        Ok(())
    }

    /// The third machine is cut off. The others go on without it, and it comes back.
    async fn cut(&self) -> anyhow::Result<()> {
        let third = &self.world.machines[2];
        self.load.take();
        third.link(false)?;
        tokio::time::sleep(CUT).await;
        let tally = self.load.all_good("while the third machine is cut off", 50).await?;
        ensure!(tally.good > 50, "the others go on: {tally:?}");
        self.world.known("reviews-3", false).await?;
        self.load.all_good("without the third machine", 50).await?;
        third.link(true)?;
        for name in ["reviews-3", "cart-3", "pricing-3", "catalog-v1-3-new"] {
            self.world.known(name, true).await?;
        }
        self.load.all_good("the third machine is back", 100).await?;
        Ok(())
    }

    /// The way to the third machine is long, or narrow at least: answers take longer, and come.
    async fn slow(&self) -> anyhow::Result<()> {
        let third = &self.world.machines[2];
        let long = third.delay(DELAY);
        if let Err(error) = &long {
            eprintln!("skipped: a long way, as the kernel cannot make one: {error:#}");
            if let Err(error) = third.slow("256kbit") {
                eprintln!("skipped: a narrow way, as the kernel cannot make one: {error:#}");
                return Ok(());
            }
        }
        let tally = self.load.all_good("the way to the third machine is slow", 100).await?;
        let enough = long.is_err() || tally.slowest.as_millis() >= u128::from(DELAY);
        ensure!(enough, "nobody went there: {:?}", tally.slowest);
        Ok(())
    }
}
