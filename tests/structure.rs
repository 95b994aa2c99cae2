//! The structure of the sources: imports point one way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{UseTree, visit::Visit};

/// The rooms of the crate, from the ground up: each may import from those before it, and from itself.
const ROOMS: [&str; 9] = [
    "error",
    "jitter",
    "token",
    "store",
    "user",
    "jwt",
    "manager",
    "middleware",
    "test_util",
];

/// What imports what, by file, with the parts of a path: `store/redis/link.rs` is `[store, redis, link]`.
type Imports = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

/// Stores know no manager, and managers no middleware.
#[test]
fn no_room_imports_from_a_room_above_it() {
    let floor = |module: &[String]| ROOMS.iter().position(|room| *room == module[0]);
    for (file, imported) in imports() {
        for other in imported {
            if let (Some(from), Some(to)) = (floor(&file), floor(&other)) {
                assert!(to <= from, "{file:?} imports {other:?}");
            }
        }
    }
}

/// Files do not import one another in a circle. (What a file takes from the module that it is a part of does not
/// count.)
#[test]
fn no_files_import_one_another() {
    let imports = imports();
    let is_leaf = |module: &Vec<String>| !imports.keys().any(|other| is_within(other, module));
    let mut left: Imports = imports.clone();
    left.retain(|module, _| is_leaf(module));
    loop {
        let ground: Vec<_> = left
            .iter()
            .filter(|(_, imported)| !imported.iter().any(|other| left.contains_key(other)))
            .map(|(module, _)| module.clone())
            .collect();
        if ground.is_empty() {
            break;
        }
        left.retain(|module, _| !ground.contains(module));
    }
    let circle: Vec<_> = left.keys().map(|module| module.join("::")).collect();
    assert!(circle.is_empty(), "a circle is among {circle:#?}");
}

#[test]
fn imports_are_found() {
    let imports = imports();
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
    for (from, to) in [
        ("store::redis::link", "store::redis::live"),
        ("store::redis::sentinel::promotion", "store::redis::role"),
        ("middleware::service", "middleware::future"),
        ("manager::users", "token"),
    ] {
        assert!(
            imports[&module(from)].contains(&module(to)),
            "{from} imports {to}"
        );
    }
}

fn is_within(module: &[String], parent: &[String]) -> bool {
    module.len() > parent.len() && module.starts_with(parent)
}

/// All imports within the crate that name a file.
fn imports() -> Imports {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut files = BTreeMap::new();
    collect(&root, &mut Vec::new(), &mut files);
    let modules: BTreeSet<Vec<String>> = files.keys().cloned().collect();
    let import = |module: &Vec<String>, path: &PathBuf| {
        let source = fs::read_to_string(path).expect("a source");
        let parsed = syn::parse_file(&source).expect("Rust");
        let mut uses = Uses {
            module,
            paths: Vec::new(),
        };
        uses.visit_file(&parsed);
        let named = uses.paths.iter().filter_map(|path| {
            // The longest part of the path that is a file: what is within it, or re-exported by it.
            (1..=path.len())
                .rev()
                .map(|len| path[..len].to_vec())
                .find(|path| modules.contains(path))
        });
        named.filter(|other| other != module).collect()
    };
    files
        .iter()
        .map(|(module, path)| (module.clone(), import(module, path)))
        .collect()
}

/// The files under a directory, by their modules.
fn collect(dir: &Path, module: &mut Vec<String>, files: &mut BTreeMap<Vec<String>, PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a name")
            .to_owned();
        if path.is_dir() {
            module.push(stem);
            collect(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "lib" {
            let mut name = module.clone();
            if stem != "mod" {
                name.push(stem);
            }
            files.insert(name, path);
        }
    }
}

/// The paths that a file imports, from the root of the crate.
struct Uses<'a> {
    module: &'a [String],
    paths: Vec<Vec<String>>,
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add(&item.tree, &mut Vec::new());
    }

    /// Tests may import what they like.
    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}
}

impl Uses<'_> {
    fn add(&mut self, tree: &UseTree, path: &mut Vec<String>) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.add(&part.tree, path);
                path.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add(tree, path)),
            UseTree::Name(name) => self.finish(path, &name.ident.to_string()),
            UseTree::Rename(rename) => self.finish(path, &rename.ident.to_string()),
            UseTree::Glob(_) => self.finish(path, "*"),
        }
    }

    fn finish(&mut self, path: &[String], name: &str) {
        let mut resolved = match path.first().map_or(name, String::as_str) {
            "crate" => Vec::new(),
            "self" | "super" => self.module.to_vec(),
            _ => return,
        };
        for part in path.iter().map(String::as_str).chain([name]) {
            match part {
                "crate" | "self" => {}
                "super" => {
                    resolved.pop();
                }
                part => resolved.push(part.to_owned()),
            }
        }
        if !resolved.is_empty() {
            self.paths.push(resolved);
        }
    }
}
