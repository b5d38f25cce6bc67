//! Which item of a Rust file a line belongs to: the one around it, else the one behind it. Knows
//! nothing of clauses.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The named items of a file, in the order in which they begin.
pub(super) struct Items(Vec<Item>);

/// A function, type, constant or macro call that has a name.
pub(super) struct Item {
    first_line: usize,
    last_line: usize,
    /// With the type that it belongs to: `Header::parse`.
    pub(super) name: String,
    /// Whether it is a test function, or a macro call that makes some.
    pub(super) is_test: bool,
}

impl Items {
    pub(super) fn of(file: &syn::File) -> Self {
        let mut finder = Finder { items: Vec::new(), owner: None };
        finder.visit_file(file);
        let mut items = finder.items;
        items.sort_by_key(|item| item.first_line);
        Self(items)
    }

    /// The innermost item around the line, else the next one behind it.
    pub(super) fn at(&self, line: usize) -> Option<&Item> {
        let around = self.0.iter().rfind(|item| (item.first_line..=item.last_line).contains(&line));
        around.or_else(|| self.0.iter().find(|item| item.first_line > line))
    }
}

struct Finder {
    items: Vec<Item>,
    /// The type or trait whose items are visited.
    owner: Option<String>,
}

impl Finder {
    fn add(&mut self, name: &syn::Ident, span: Span, is_test: bool) {
        let name = match &self.owner {
            Some(owner) => format!("{owner}::{name}"),
            None => name.to_string(),
        };
        let (first_line, last_line) = (span.start().line, span.end().line);
        self.items.push(Item { first_line, last_line, name, is_test });
    }

    /// Visits what belongs to a type or trait.
    fn within(&mut self, owner: String, visit: impl FnOnce(&mut Self)) {
        let outer = self.owner.replace(owner);
        visit(self);
        self.owner = outer;
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.add(&node.sig.ident, node.span(), is_test(&node.attrs));
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.add(&node.sig.ident, node.span(), false);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        self.add(&node.sig.ident, node.span(), false);
        visit::visit_trait_item_fn(self, node);
    }

    fn visit_item_struct(&mut self, node: &'ast syn::ItemStruct) {
        self.add(&node.ident, node.span(), false);
    }

    fn visit_item_enum(&mut self, node: &'ast syn::ItemEnum) {
        self.add(&node.ident, node.span(), false);
    }

    fn visit_item_const(&mut self, node: &'ast syn::ItemConst) {
        self.add(&node.ident, node.span(), false);
    }

    fn visit_impl_item_const(&mut self, node: &'ast syn::ImplItemConst) {
        self.add(&node.ident, node.span(), false);
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        let owner = match &*node.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.within(owner.unwrap_or_default(), |this| visit::visit_item_impl(this, node));
    }

    fn visit_item_trait(&mut self, node: &'ast syn::ItemTrait) {
        self.add(&node.ident, node.span(), false);
        self.within(node.ident.to_string(), |this| visit::visit_item_trait(this, node));
    }

    /// A macro call counts by the macro's name: what it makes is not seen.
    fn visit_item_macro(&mut self, node: &'ast syn::ItemMacro) {
        let Some(last) = node.mac.path.segments.last() else { return };
        self.add(&last.ident, node.span(), last.ident == "proptest");
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_belongs_to_the_innermost_item_around_it_or_to_the_next() {
        let text = "//! Head.\n\
                    // here\n\
                    const A: u8 = 1;\n\
                    impl B<u8> {\n\
                        // here\n\
                        fn c() {\n\
                            // here\n\
                        }\n\
                    }\n\
                    mod tests {\n\
                        // here\n\
                        #[test]\n\
                        fn d() {}\n\
                    }\n\
                    // nothing\n";
        let items = Items::of(&syn::parse_file(text).unwrap());
        let at = |line: usize| items.at(line).map(|item| (item.name.as_str(), item.is_test));
        for (line, item) in [
            (2, Some(("A", false))),
            (5, Some(("B::c", false))),
            (7, Some(("B::c", false))),
            (11, Some(("d", true))),
            (15, None),
        ] {
            assert_eq!(at(line), item, "line {line}");
        }
    }
}
