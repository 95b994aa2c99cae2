//! The structure of the sources: imports point one way, and files are short.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{
    Attribute, UseTree, Visibility,
    buffer::{Cursor, TokenBuffer},
    visit::{self, Visit},
};

/// The rooms of the crate, from the ground up: each may import from those before it, and from itself.
const ROOMS: [&str; 12] = [
    "error",
    "jitter",
    "sync",
    "refusal",
    "scopes",
    "token",
    "store",
    "user",
    "jwt",
    "manager",
    "middleware",
    "test_util",
];

/// The rooms of the Redis store, in the same order. Its other files put them together and are in no room.
const REDIS_ROOMS: [&str; 6] = ["wire", "near", "conn", "source", "ops", "route"];

/// The maximum number of lines of a file, without its tests.
const MAX_LINES: usize = 350;

/// The path of a module from the root of the crate, in its parts: `store/memory.rs` is `[store, memory]`.
type Module = Vec<String>;

/// The modules that each file names in its imports and other paths.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Stores know no manager, and managers no middleware.
#[test]
fn no_room_imports_from_a_room_above_it() {
    let imports = Sources::of_the_crate().imports();
    for file in imports.keys().filter(|file| !file.is_empty()) {
        let is_known = ROOMS.contains(&&*file[0]) || ["guide", "fuzzing"].contains(&&*file[0]);
        assert!(is_known, "{} is in no room", file.join("::"));
    }
    let above = above(&imports);
    assert!(above.is_empty(), "{above:#?}");
}

/// Only what calls them knows the topology: see `src/store/redis/mod.rs`.
#[test]
fn no_room_of_the_redis_store_imports_from_a_room_above_it() {
    let imports = Sources::of_the_crate().imports();
    for room in REDIS_ROOMS {
        let is_there = imports.contains_key(&module(&format!("store::redis::{room}")));
        assert!(is_there, "store::redis::{room} is no module");
    }
    let above = above_in_redis(&imports);
    assert!(above.is_empty(), "the order is {REDIS_ROOMS:?}: {above:#?}");
}

/// The parts of a module do not import one another in a circle. (What a file takes from the module that it is a part
/// of, or from its own parts, does not count.)
#[test]
fn no_modules_import_one_another() {
    let circles = circles(&Sources::of_the_crate().imports());
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn no_file_is_long() {
    let sources = Sources::of_the_crate();
    let mut long = BTreeMap::new();
    for (module, text) in &sources.texts {
        let (code, _tests) = text
            .split_once("#[cfg(test)]\nmod tests")
            .unwrap_or((text, ""));
        let lines = code.lines().count();
        let name = module.join("::");
        if lines > MAX_LINES {
            long.insert(name, lines);
        }
    }
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:#?}");
}

/// Every way to name another file is an import.
#[test]
fn every_path_is_an_import() {
    for named in [
        "use crate::manager::types::TokenInfo;",
        "use crate::{error::Error, manager::types::{self, TokenInfo as Info}};",
        "use super::super::manager::types::*;",
        // Names that the root of the crate or another module re-exports.
        "use crate::TokenInfo;",
        "use crate::manager::TokenInfo;",
        "use crate::manager; fn f(_: manager::TokenInfo) {}",
        // Without a `use`.
        "fn f(_: &crate::TokenInfo) {}",
        "fn f() { crate::manager::types::x(); }",
        "fn f() { match x() { crate::manager::types::X => () } }",
        "fn f() { g::<super::super::manager::types::X>(); }",
        "impl crate::manager::types::X for Y {}",
        "pub(in crate::manager::types) struct X;",
        "fn f() { println!(\"{}\", [crate::manager::types::X]); }",
        "mod inner { use super::super::super::manager::types::X; }",
        "mod inner { fn f(_: crate::TokenInfo) {} }",
    ] {
        let found = planted(&[("store::memory", named)]).imports();
        let types = module("manager::types");
        assert!(found[&module("store::memory")].contains(&types), "{named}");
        let above = above(&found);
        assert!(!above.is_empty(), "{named}");
    }
    for unnamed in [
        "#[cfg(test)] mod tests { use crate::TokenInfo; }",
        "#[cfg(test)] impl X { fn f(_: crate::TokenInfo) {} }",
        "fn f() { println!(\"crate::TokenInfo\"); } // crate::TokenInfo",
        "/// [`TokenInfo`](crate::TokenInfo)\nfn f() {}",
        "use manager::TokenInfo;",
    ] {
        let found = planted(&[("store::memory", unnamed)]).imports();
        assert!(found[&module("store::memory")].is_empty(), "{unnamed}");
    }
}

/// A circle is found whatever files it goes through, but a module and its own parts make none.
#[test]
fn every_circle_is_found() {
    for circle in [
        // Two files, and a file with parts on either side.
        [
            ("store::memory", "use super::config::X;"),
            ("store::config", "use super::memory::X;"),
        ],
        [
            ("store::redis", "use super::memory::X;"),
            ("store::memory", "use super::redis::X;"),
        ],
        [
            ("store::redis", "fn f(_: super::mysql::X) {}"),
            ("store::mysql", "fn f(_: super::redis::X) {}"),
        ],
        // Through other parts of the same two modules.
        [
            ("store::redis::link", "use crate::store::memory::X;"),
            ("store::memory", "use super::redis::role::X;"),
        ],
        // Through a name that the common parent re-exports.
        [
            ("manager::types", "use super::LoadUser;"),
            ("manager::loader", "use super::types::X;"),
        ],
    ] {
        let circles = circles(&planted(&circle).imports());
        assert!(!circles.is_empty(), "{circle:?}");
    }
    let parent = planted(&[
        ("store::redis", "use self::link::X; fn f() { link::x() }"),
        ("store::redis::link", "use super::RedisStore;"),
        ("store::redis::role", "use super::link::X;"),
    ]);
    assert_eq!(circles(&parent.imports()), BTreeMap::new());
}

#[test]
fn an_import_from_a_room_of_the_redis_store_above_is_found() {
    let mut sources = Sources::default();
    for (file, text) in [
        ("store::redis::wire", ""),
        ("store::redis::conn", "use super::route::X;"),
        ("store::redis::route", "use super::wire::X;"),
    ] {
        sources.texts.insert(module(file), text.to_owned());
    }
    sources.texts.insert(Vec::new(), String::new());
    let above = above_in_redis(&sources.imports());
    assert_eq!(above, ["store::redis::conn imports store::redis::route"]);
}

/// The sources are read, and not found empty.
#[test]
fn imports_of_the_crate_are_found() {
    let imports = Sources::of_the_crate().imports();
    for (from, to) in [
        ("store::redis::conn::link", "store::redis::conn::live"),
        (
            "store::redis::source::sentinel::promotion",
            "store::redis::wire::role",
        ),
        ("middleware::service", "middleware::future"),
        ("manager::users", "token"),
    ] {
        let found = imports[&module(from)].contains(&module(to));
        assert!(found, "{from} imports {to}");
    }
}

fn module(path: &str) -> Module {
    path.split("::").map(str::to_owned).collect()
}

/// A small crate of the given files.
fn planted(files: &[(&str, &str)]) -> Sources {
    let root = "pub use self::manager::{TokenInfo}; mod manager; mod store;";
    let manager = "pub use self::{loader::LoadUser, types::TokenInfo};";
    let mut sources = Sources::default();
    sources.texts.insert(Vec::new(), root.to_owned());
    sources.texts.insert(module("manager"), manager.to_owned());
    for empty in [
        "error",
        "manager::types",
        "manager::loader",
        "store",
        "store::config",
        "store::memory",
        "store::mysql",
        "store::redis",
        "store::redis::link",
        "store::redis::role",
    ] {
        sources.texts.insert(module(empty), String::new());
    }
    for (file, text) in files {
        sources.texts.insert(module(file), (*text).to_owned());
    }
    sources
}

/// The imports of each room from rooms above it.
fn above(imports: &Imports) -> Vec<String> {
    imports_upwards(imports, |module| {
        let room = module.first()?;
        ROOMS.iter().position(|name| name == room)
    })
}

/// The imports of each room of the Redis store from rooms above it.
fn above_in_redis(imports: &Imports) -> Vec<String> {
    imports_upwards(imports, |module| match module {
        [store, redis, room, ..] if store == "store" && redis == "redis" => {
            REDIS_ROOMS.iter().position(|name| name == room)
        }
        _ => None,
    })
}

/// The imports from a lower to a higher floor.
fn imports_upwards(imports: &Imports, floor: impl Fn(&[String]) -> Option<usize>) -> Vec<String> {
    let mut above = Vec::new();
    for (file, imported) in imports {
        for other in imported {
            if floor(file)
                .zip(floor(other))
                .is_some_and(|(from, to)| to > from)
            {
                above.push(format!("{} imports {}", file.join("::"), other.join("::")));
            }
        }
    }
    above
}

/// A circle among the parts of each module that has one, as the imports that make it.
fn circles(imports: &Imports) -> BTreeMap<String, Vec<String>> {
    // Where the paths of two modules part, a part of a module imports another one of its parts; with an example.
    let mut parts: BTreeMap<&[String], BTreeMap<&str, BTreeMap<&str, String>>> = BTreeMap::new();
    for (from, imported) in imports {
        for to in imported {
            let len = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            if len < from.len() && len < to.len() {
                let parts = parts.entry(&from[..len]).or_default();
                let example = format!("{} imports {}", from.join("::"), to.join("::"));
                let imported = parts.entry(&from[len]).or_default();
                imported.entry(&to[len]).or_insert(example);
            }
        }
    }
    let circles = parts.into_iter().filter_map(|(parent, parts)| {
        let circle = circle(parts)?;
        Some((format!("within `{}`", parent.join("::")), circle))
    });
    circles.collect()
}

/// A circle among parts, as the examples of its imports.
fn circle(mut left: BTreeMap<&str, BTreeMap<&str, String>>) -> Option<Vec<String>> {
    // What imports nothing that is left is in no circle.
    while let Some(part) = left.iter().find_map(|(part, imported)| {
        let ends = !imported.keys().any(|other| left.contains_key(other));
        ends.then_some(*part)
    }) {
        left.remove(part);
    }
    // From the first part, each step leads to one that is left, until it leads to one that was passed.
    let mut at = *left.keys().next()?;
    let (mut passed, mut circle) = (Vec::new(), Vec::new());
    while !passed.contains(&at) {
        passed.push(at);
        let mut next = left[at]
            .iter()
            .filter(|(other, _)| left.contains_key(*other));
        let (other, example) = next.next()?;
        circle.push(example.clone());
        at = other;
    }
    let start = passed.iter().position(|part| *part == at)?;
    Some(circle.split_off(start))
}

/// The texts of the files; the root of the crate is the empty path.
#[derive(Default)]
struct Sources {
    texts: BTreeMap<Module, String>,
}

impl Sources {
    fn of_the_crate() -> Self {
        let mut sources = Self::default();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
        sources.collect(&root, &mut Vec::new());
        sources
    }

    /// Reads the files under a directory.
    fn collect(&mut self, dir: &Path, module: &mut Module) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let stem = stem.expect("a name").to_owned();
            if path.is_dir() {
                module.push(stem);
                self.collect(&path, module);
                module.pop();
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let mut name = module.clone();
                if stem != "mod" && stem != "lib" {
                    name.push(stem);
                }
                let text = fs::read_to_string(path).expect("a source");
                self.texts.insert(name, text);
            }
        }
    }

    fn imports(&self) -> Imports {
        let read = |(module, text): (&Module, &String)| {
            let mut paths = Paths::new(module);
            paths.visit_file(&syn::parse_file(text).expect("Rust"));
            (module.clone(), paths)
        };
        let files: BTreeMap<Module, Paths> = self.texts.iter().map(read).collect();
        let of_a_file = |(module, paths): (&Module, &Paths)| {
            let named = paths.named.iter();
            let named = named.filter_map(|(from, path)| resolve(&files, from, path));
            let others = named.filter(|other| !module.starts_with(other));
            (module.clone(), others.collect())
        };
        files.iter().map(of_a_file).collect()
    }
}

/// The file that a path leads to from a module, through re-exports; `None` for a path to another crate.
fn resolve(files: &BTreeMap<Module, Paths>, from: &Module, path: &[String]) -> Option<Module> {
    let mut path = path.to_vec();
    let mut at = from.clone();
    // A path without `crate`, `self` or `super` begins with a name of this module, or with a crate.
    let is_name = |name: &str| {
        let mut part = from.clone();
        part.push(name.to_owned());
        files.contains_key(&part) || files.get(from).is_some_and(|of| of.uses.contains_key(name))
    };
    match &*path[0] {
        "crate" | "self" | "super" => {}
        name if is_name(name) => {}
        _ => return None,
    }
    // Each re-export replaces a name; a chain of them is short.
    for _ in 0..100 {
        let Some(name) = (!path.is_empty()).then(|| path.remove(0)) else {
            break;
        };
        match &*name {
            "crate" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()),
            _ => {
                at.push(name);
                if files.contains_key(&at) {
                    continue;
                }
                // It is no file: a re-export, or an item or a module within this one.
                let name = at.pop().expect("the name");
                let used = files.get(&at).and_then(|of| of.uses.get(&name));
                match used {
                    // A private import is one for the module and its parts only.
                    Some(used) if used.is_visible || from.starts_with(&at) => {
                        path.splice(..0, used.path.iter().cloned())
                    }
                    _ => break,
                };
                let first = &*path[0];
                let mut part = at.clone();
                part.push(first.to_owned());
                if !matches!(first, "crate" | "self" | "super") && !files.contains_key(&part) {
                    break; // Of another crate.
                }
            }
        }
    }
    // A module within a file belongs to the file.
    while !files.contains_key(&at) {
        at.pop();
    }
    Some(at)
}

/// The paths in a file, but for its tests.
struct Paths {
    /// The module that is visited: that of the file, or one within it.
    module: Module,
    /// The module of the file.
    file: Module,
    /// Each path, with the module that names it.
    named: Vec<(Module, Vec<String>)>,
    /// The names that the file imports.
    uses: BTreeMap<String, Use>,
}

/// What a name that a file imports stands for.
struct Use {
    path: Vec<String>,
    /// Whether other modules can import the name in turn.
    is_visible: bool,
}

impl Paths {
    fn new(module: &Module) -> Self {
        Self {
            module: module.clone(),
            file: module.clone(),
            named: Vec::new(),
            uses: BTreeMap::new(),
        }
    }

    fn name(&mut self, path: Vec<String>) {
        self.named.push((self.module.clone(), path));
    }

    fn add(&mut self, tree: &UseTree, path: &mut Vec<String>, is_visible: bool) {
        let (name, alias) = match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.add(&part.tree, path, is_visible);
                path.pop();
                return;
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add(tree, path, is_visible);
                }
                return;
            }
            UseTree::Glob(_) => return self.name(path.clone()),
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(rename) => (rename.ident.to_string(), rename.rename.to_string()),
        };
        let mut path = path.clone();
        // `use a::{self}` imports `a`.
        let alias = match (&*name, path.last()) {
            ("self", Some(last)) if alias == "self" => last.clone(),
            _ => alias,
        };
        if name != "self" || path.is_empty() {
            path.push(name);
        }
        if self.module == self.file {
            let path = path.clone();
            self.uses.insert(alias, Use { path, is_visible });
        }
        self.name(path);
    }

    /// Adds the paths in the tokens of a macro.
    fn add_tokens(&mut self, mut cursor: Cursor<'_>) {
        while !cursor.eof() {
            let start = cursor;
            let mut path = Vec::new();
            while let Some((ident, rest)) = cursor.ident() {
                path.push(ident.to_string());
                cursor = rest;
                let colon = |cursor: Cursor<'_>| match cursor.punct() {
                    Some((punct, _)) => punct.as_char() == ':',
                    None => false,
                };
                if !colon(cursor) {
                    break;
                }
                let (_, second) = cursor.punct().expect("a colon");
                if !colon(second) {
                    break;
                }
                cursor = second.punct().expect("a colon").1;
            }
            if path.len() > 1 {
                self.name(path);
            } else if let Some((within, _, _, rest)) = start.any_group() {
                self.add_tokens(within);
                cursor = rest;
            } else if path.is_empty() {
                let (_, rest) = start.token_tree().expect("a token");
                cursor = rest;
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_exempt(&item.attrs) {
            let is_visible = !matches!(item.vis, Visibility::Inherited);
            self.add(&item.tree, &mut Vec::new(), is_visible);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A single name is imported by a `use`, or is of this module.
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let parts = path.segments.iter();
            self.name(parts.map(|part| part.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let tokens = TokenBuffer::new2(item.tokens.clone());
        self.add_tokens(tokens.begin());
        visit::visit_macro(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_exempt(&item.attrs) {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_exempt(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_exempt(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }
}

/// Tests, and links in the documentation, may name what they like.
fn is_exempt(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let mut is_exempt = false;
        if attribute.path().is_ident("cfg") {
            let _ = attribute.parse_nested_meta(|meta| {
                is_exempt |= meta.path.is_ident("test") || meta.path.is_ident("doc");
                Ok(())
            });
        }
        is_exempt
    })
}
