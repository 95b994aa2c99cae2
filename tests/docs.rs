//! The rustdoc pages, as docs.rs shows them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// The directory of the crate.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A public item that is re-exported has a page, to which the re-export links.
#[test]
fn every_public_item_has_a_page() {
    let docs = docs();
    let mut reexports = BTreeSet::new();
    for page in &docs.pages {
        for (name, line) in page.reexports() {
            assert!(
                line.contains("<a "),
                "{} has no page: {line}",
                name.escape_debug()
            );
            reexports.insert(name.to_owned());
        }
    }
    for name in [
        "MySqlStore",
        "RedisHealth",
        "RedisStore",
        "RedisStoreBuilder",
        "SessionLayer",
    ] {
        let has_page = docs.pages.iter().any(|page| {
            let file = page.path.file_name().and_then(|name| name.to_str());
            file == Some(&format!("struct.{name}.html"))
        });
        assert!(has_page, "{name} has no page");
    }
    assert!(
        reexports.contains("SessionLayer"),
        "no re-exports were found; has rustdoc changed its markup? {reexports:?}"
    );
}

/// Links between pages lead somewhere.
#[test]
fn no_link_is_dead() {
    let docs = docs();
    let (mut links, mut dead) = (0, BTreeSet::new());
    for page in &docs.pages {
        let dir = page.path.parent().expect("a page is in a directory");
        for link in page.links() {
            links += 1;
            if !dir.join(link).exists() {
                dead.insert(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links: {dead:#?}");
    assert!(links > 1000, "only {links} links were found");
}

/// A guarantee that nothing proves is none.
#[test]
fn every_rule_of_the_threat_model_is_a_test() {
    let root = Path::new(ROOT);
    let model = fs::read_to_string(root.join("src/guide/threat_model.md")).expect("the model");
    let mut sources = String::new();
    read_sources(&root.join("tests"), &mut sources);
    let mut names = 0;
    let rows = model.lines().filter(|line| line.starts_with("| "));
    // The last column has the names.
    let columns = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    for name in columns.flat_map(|column| column.split('`').skip(1).step_by(2)) {
        names += 1;
        let test = format!("fn {name}(");
        assert!(sources.contains(&test), "there is no test {name}");
    }
    assert!(names > 20, "only {names} tests are named");
}

fn read_sources(dir: &Path, sources: &mut String) {
    for entry in fs::read_dir(dir).expect("a directory of tests") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// The pages, built once for all tests.
fn docs() -> &'static Docs {
    static DOCS: LazyLock<Docs> = LazyLock::new(Docs::build);
    &DOCS
}

struct Docs {
    pages: Vec<Page>,
}

struct Page {
    path: PathBuf,
    html: String,
}

impl Docs {
    fn build() -> Self {
        let cargo = Command::new(env!("CARGO"))
            .args(["doc", "--no-deps", "--all-features"])
            .current_dir(ROOT)
            .output()
            .expect("cargo starts");
        let stderr = String::from_utf8_lossy(&cargo.stderr);
        assert!(cargo.status.success(), "cargo doc failed: {stderr}");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let root = target.expect("a target directory").join("doc");
        let mut pages = Vec::new();
        collect(&root.join("tower_bearer_session"), &mut pages);
        assert!(!pages.is_empty(), "no pages in {}", root.display());
        Self { pages }
    }
}

fn collect(dir: &Path, pages: &mut Vec<Page>) {
    for entry in fs::read_dir(dir).expect("a directory of pages") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, pages);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "html")
        {
            let html = fs::read_to_string(&path).expect("a page");
            pages.push(Page { path, html });
        }
    }
}

impl Page {
    /// The names of re-exports, each with the line that shows it.
    fn reexports(&self) -> impl Iterator<Item = (&str, &str)> {
        let items = self.html.split(r#"id="reexport."#).skip(1);
        items.map(|item| {
            let (name, rest) = item.split_once('"').expect("an id");
            let (line, _) = rest.split_once("</dt>").expect("the end of an item");
            (name, line)
        })
    }

    /// The pages of this build to which this page links, relative to its own directory.
    fn links(&self) -> impl Iterator<Item = &str> {
        let links = self.html.split(r#"href=""#).skip(1);
        let links = links.filter_map(|rest| rest.split_once('"'));
        let files = links.map(|(link, _)| link.split(['#', '?']).next().unwrap_or_default());
        // The docs of foreign blanket implementations are shown too, with links that are no pages.
        files.filter(|file| file.ends_with(".html") && !file.contains("://"))
    }
}
