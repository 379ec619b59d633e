//! `pillion image`: container images of programs, made without an engine and without a base image.

mod layer;
mod libraries;
mod oci;
mod program;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::ValueEnum;
use layer::{Layer, Owner, ROOT};
use oci::{Config, Image, Name};
use program::Program;

/// Who a sidecar is, as `pillion-proxy redirect` supposes by default.
const MESH_USER: u32 = 1337;
/// Who any other program is: not the sidecar, whose connections are never captured.
const APP_USER: u32 = 1000;
const DATA_DIR: &str = "/var/lib/pillion";
const TOKEN_DIR: &str = "/run/pillion";

/// What `pillion image` can be told.
#[derive(Debug, clap::Args)]
pub struct ImageArgs {
    /// The program, linked statically. For `pillion-proxy` and `pillion` the image has their health check, ports
    /// and folders.
    pub program: PathBuf,
    /// Arguments that the program gets unless the container is given others.
    #[arg(last = true)]
    pub arguments: Vec<String>,
    /// The image's name and tag. Default: the program's own name.
    #[arg(short, long, value_name = "NAME:TAG")]
    pub tag: Option<String>,
    /// The archive (or, with --format folder, the folder) to write; - is standard output.
    #[arg(short, long, value_name = "PATH")]
    pub output: PathBuf,
    /// What is written.
    #[arg(long, value_enum, default_value_t = Format::Archive)]
    pub format: Format,
    /// A file or folder to add, at its own path or at PLACE; programs come with their shared libraries. Can be
    /// repeated.
    #[arg(long = "add", value_name = "PATH[=PLACE]")]
    pub additions: Vec<Addition>,
    /// Pack the program's shared libraries too, if it is not linked statically.
    #[arg(long)]
    pub with_libraries: bool,
    /// Who the program runs as. Default: 1337 for pillion-proxy and pillion, else 1000.
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    pub user: Option<(u32, u32)>,
    /// A variable of the environment. Can be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    pub environment: Vec<(String, String)>,
    /// A label of the image. Can be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// A TCP port that the program listens on. Can be repeated.
    #[arg(long = "expose", value_name = "PORT")]
    pub ports: Vec<u16>,
    /// How the layer is packed.
    #[arg(long, value_enum, default_value_t = Packing::Gzip)]
    pub compression: Packing,
    /// When the image says that it was made, in seconds since 1970.
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", default_value_t = 0)]
    pub time: u64,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One tar archive, which `docker load`, `podman load` and tools for OCI layouts take.
    Archive,
    /// An OCI image layout as a folder.
    Folder,
}

/// How the layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Packing {
    /// By gzip.
    Gzip,
    /// Not at all.
    None,
}

/// Something more for the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Where it is here.
    pub path: PathBuf,
    /// Where it is in the image.
    pub place: PathBuf,
}

impl FromStr for Addition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, place) = text.split_once('=').unwrap_or((text, text));
        if path.is_empty() || !place.starts_with('/') {
            return Err(format!("`{text}`: expected PATH=PLACE, or a path that begins with /"));
        }
        Ok(Self { path: path.into(), place: place.into() })
    }
}

/// Writes the image.
///
/// # Errors
/// When the program is not static and `--with-libraries` is not given; or a file cannot be read or written.
pub fn run(args: &ImageArgs) -> anyhow::Result<ExitCode> {
    let (layer, config, name) = plan(args)?;
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    let gzip = args.compression == Packing::Gzip;
    let written = layer.write(&mut file, gzip, args.time)?;
    let content = written.content;
    let image = Image::new(name.clone(), &config, written, gzip);
    match args.format {
        Format::Folder => image.write_folder(&mut file, &args.output)?,
        Format::Archive if args.output == Path::new("-") => {
            image.write_archive(&mut file, std::io::stdout().lock())?;
        }
        Format::Archive => write_file(&image, &mut file, &args.output)?,
    }
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let size = content as f64 / (1024.0 * 1024.0);
    eprintln!("{name}: linux/{}, {size:.1} MiB, {}", config.architecture, image.id());
    Ok(ExitCode::SUCCESS)
}

/// Written beside it first, so that nobody finds half an archive.
fn write_file(image: &Image, layer: &mut File, path: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let new = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder.unwrap_or_else(|| Path::new(".")))
        .with_context(failed)?;
    image.write_archive(layer, BufWriter::new(new.as_file())).with_context(failed)?;
    new.persist(path).map_err(|error| error.error).with_context(failed)?;
    Ok(())
}

/// What is special about an image of one of our own programs.
#[derive(Debug, Default)]
struct Kind {
    is_ours: bool,
    arguments: &'static [&'static str],
    port: Option<u16>,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name {
            "pillion-proxy" => Self { is_ours: true, arguments: &[], port: Some(15006) },
            "pillion" => Self {
                is_ours: true,
                arguments: &["control-plane", "--address", "0.0.0.0"],
                port: Some(15012),
            },
            _ => Self::default(),
        }
    }
}

fn plan(args: &ImageArgs) -> anyhow::Result<(Layer, Config, Name)> {
    let path = &args.program;
    let Some(program) = Program::read(path)? else {
        bail!("{} is no program: expected an ELF file", path.display());
    };
    if !program.is_static() && !args.with_libraries {
        bail!("{}", not_static(path, &program));
    }
    let own_name =
        path.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
    let name =
        args.tag.as_deref().unwrap_or(own_name).parse::<Name>().map_err(anyhow::Error::msg)?;
    let kind = Kind::of(own_name);
    let user = args.user.unwrap_or(if kind.is_ours {
        (MESH_USER, MESH_USER)
    } else {
        (APP_USER, APP_USER)
    });
    let user = Owner { user: user.0, group: user.1 };
    let mut layer = base(&kind, user);
    let place = Path::new("/").join(own_name);
    layer.copy(path, &place)?;
    for addition in &args.additions {
        layer.copy(&addition.path, &addition.place)?;
    }
    let folders = add_libraries(&mut layer)?;
    let text = |text: &str| text.to_owned();
    let mut environment = BTreeMap::from([(text("PATH"), text("/usr/sbin:/usr/bin:/sbin:/bin"))]);
    if !folders.is_empty() {
        environment.insert(text("LD_LIBRARY_PATH"), folders.join(":"));
    }
    if kind.is_ours {
        environment.insert(text("PILLION_DATA_DIR"), text(DATA_DIR));
    }
    environment.extend(args.environment.iter().cloned());
    let mut labels = BTreeMap::from([(text("org.opencontainers.image.title"), text(own_name))]);
    if kind.is_ours {
        labels.insert(text("org.opencontainers.image.version"), text(env!("CARGO_PKG_VERSION")));
        labels.insert(text("org.opencontainers.image.licenses"), text(env!("CARGO_PKG_LICENSE")));
    }
    labels.extend(args.labels.iter().cloned());
    let entrypoint = place.display().to_string();
    let arguments = match args.arguments.as_slice() {
        [] => kind.arguments.iter().map(|one| text(one)).collect(),
        given => given.to_vec(),
    };
    let config = Config {
        architecture: program.architecture,
        user,
        health: kind.is_ours.then(|| vec![entrypoint.clone(), text("health")]),
        entrypoint: vec![entrypoint],
        arguments,
        environment,
        labels,
        ports: kind.port.into_iter().chain(args.ports.iter().copied()).collect(),
        time: args.time,
    };
    Ok((layer, config, name))
}

/// What programs expect of a root folder.
fn base(kind: &Kind, user: Owner) -> Layer {
    let mut layer = Layer::default();
    layer.folder("/tmp", 0o1777, ROOT);
    let Owner { user: uid, group: gid } = user;
    let mut users = "root:x:0:0:root:/:/sbin/nologin\n".to_owned();
    let mut groups = "root:x:0:\n".to_owned();
    if uid != 0 {
        users.push_str(&format!("pillion:x:{uid}:{gid}:pillion:/:/sbin/nologin\n"));
    }
    if gid != 0 {
        groups.push_str(&format!("pillion:x:{gid}:\n"));
    }
    layer.text("/etc/passwd", users);
    layer.text("/etc/group", groups);
    if kind.is_ours {
        layer.folder(DATA_DIR, 0o700, user);
        layer.folder(TOKEN_DIR, 0o700, user);
    }
    layer
}

/// Adds the libraries of all programs in the layer; folders that the loader has to be told of.
fn add_libraries(layer: &mut Layer) -> anyhow::Result<Vec<String>> {
    let mut folders = std::collections::BTreeSet::new();
    let mut files = std::collections::BTreeSet::new();
    for (from, _) in layer.files() {
        if let Some(program) = Program::read(from)? {
            let from = from.canonicalize()?;
            let found = libraries::find(&program, &from)?;
            folders.extend(found.folders.iter().map(|folder| folder.display().to_string()));
            files.extend(found.files);
        }
    }
    for file in files {
        layer.copy(&file, &file)?;
    }
    Ok(folders.into_iter().collect())
}

fn not_static(path: &Path, program: &Program) -> String {
    let shown = path.display();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let needs = match &program.interpreter {
        Some(interpreter) => format!("{interpreter}, {}", program.needed.join(", ")),
        None => program.needed.join(", "),
    };
    format!(
        "{shown} is not linked statically: it needs {needs}. Build it with\n\n  \
         RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile image \
         --target \"$(rustc --print host-tuple)\" --bin {name}\n\n\
         or say --with-libraries to pack these files too"
    )
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let bad = || format!("`{text}`: expected UID or UID:GID, such as 1337");
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    Ok((user.parse().map_err(|_| bad())?, group.parse().map_err(|_| bad())?))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}`: expected NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests;
