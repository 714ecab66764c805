//! From the root group to every object, and every path to one.

use std::collections::{HashMap, HashSet};

use super::super::{Fault, Outcome};
use super::dataset::{self, Dataset, Types};
use super::datatype::Datatype;
use super::header::{
    ATTRIBUTE, DATASPACE, DATATYPE, Header, LAYOUT, LINK, LINK_INFO, Message, SYMBOL_TABLE, UNUSED,
};
use super::image::Image;
use super::links::{self, Link, Target};
use super::superblock::Root;
use super::{attribute, symbols};
use crate::limits;

/// As many soft links may stand for one another.
const MAX_LINKS: usize = 16;

enum Object {
    /// Links in the order of their names; tree and heap of a group in the old format.
    Group(Vec<Link>, Option<(u64, u64)>),
    Dataset(usize),
    /// No tensor can be made of it.
    Other(String),
}

/// What a file holds.
pub(super) struct Contents {
    objects: HashMap<u64, Object>,
    pub(super) datasets: Vec<Dataset>,
    root: u64,
    length: u64,
}

/// Something that a path leads to: a dataset by its number, or why it is none.
pub(in super::super) struct Member {
    pub(in super::super) path: String,
    pub(in super::super) dataset: Result<usize, String>,
}

/// An object that a link leads to: address, what the link says of its tree and heap, path.
type Found = (u64, Option<(u64, u64)>, String);

/// What is still to be read while objects are discovered.
struct Discovery<'a> {
    root: &'a Root,
    names: &'a [&'a str],
    contents: Contents,
    types: Types,
    suspects: symbols::Suspects,
    /// For each object how many links it has and how many lead to it.
    links: HashMap<u64, (u32, u32)>,
    paths: Paths,
}

/// Bounds what paths take: several may lead to one object, and through it to everything below.
struct Paths {
    count: u64,
    bytes: u64,
}

impl Paths {
    fn new(length: u64) -> Self {
        // No link takes less than 16 bytes of a file.
        Self { count: length / 16, bytes: length.saturating_mul(40) }
    }

    fn one_more(&mut self, path: &str) -> Outcome<()> {
        limits::check_path(path)
            .map_err(|reason| Fault::format(format!("the path {:?} {reason}", limits::brief(path))))?;
        let (count, bytes) = (self.count.checked_sub(1), self.bytes.checked_sub(path.len() as u64));
        match (count, bytes) {
            (Some(count), Some(bytes)) => *self = Self { count, bytes },
            _ => return Err(Fault::format("links to groups make more paths than the file has room for")),
        }
        Ok(())
    }
}

/// Reads every object that the root group leads to.
pub(super) fn discover(image: &mut Image<'_>, root: &Root, names: &[&str]) -> Outcome<Contents> {
    let length = image.length();
    let contents = Contents { objects: HashMap::new(), datasets: Vec::new(), root: root.address, length };
    let mut discovery = Discovery {
        root,
        names,
        contents,
        types: Types::new(),
        suspects: Vec::new(),
        links: HashMap::new(),
        paths: Paths::new(length),
    };
    let mut open = vec![(root.address, root.cached, String::new())];
    while let Some((address, cached, path)) = open.pop() {
        discovery
            .object(image, address, cached, &path, &mut open)
            .map_err(|fault| if path.is_empty() { fault } else { fault.within(&format!("`{path}`")) })?;
    }
    symbols::check(image, &discovery.suspects)?;
    discovery.check_links(image)?;
    Ok(discovery.contents)
}

impl Discovery<'_> {
    fn object(
        &mut self,
        image: &mut Image<'_>,
        address: u64,
        cached: Option<(u64, u64)>,
        path: &str,
        open: &mut Vec<Found>,
    ) -> Outcome<()> {
        if let Some((_, found)) = self.links.get_mut(&address) {
            *found += 1;
        }
        if !self.contents.objects.contains_key(&address) {
            let object = self.read(image, address)?;
            if let Object::Group(links, _) = &object {
                for link in links {
                    let path =
                        if path.is_empty() { link.name.clone() } else { format!("{path}/{}", link.name) };
                    check_name(&link.name)?;
                    self.paths.one_more(&path)?;
                    if let Target::Hard(address, cached) = link.target {
                        open.push((address, cached, path));
                    }
                }
            }
            self.contents.objects.insert(address, object);
        }
        match (&self.contents.objects[&address], cached) {
            // The link keeps what it said of a group that has got the new format since.
            (Object::Group(_, None), _) | (_, None) => Ok(()),
            (Object::Group(_, table), cached) if *table == cached => Ok(()),
            _ => Err(Fault::format("the link to it describes another group")),
        }
    }

    fn read(&mut self, image: &mut Image<'_>, address: u64) -> Outcome<Object> {
        let named = || Object::Other("is a datatype".to_owned());
        if self.types.contains_key(&address) {
            return Ok(named());
        }
        let header = Header::read(image, address)?;
        check_unused(&header)?;
        let is_group = header.has(SYMBOL_TABLE) || header.has(LINK_INFO);
        match (header.get(SYMBOL_TABLE), is_group, header.has(LAYOUT)) {
            (Some(message), true, false) if !header.has(LINK_INFO) && !header.has(LINK) => {
                let mut table = message.block()?;
                let links = symbols::read(image, message.block()?, self.root, &mut self.suspects)?;
                let table = table.address()?.zip(table.address()?);
                self.links.insert(address, (header.links, 1));
                Ok(Object::Group(links, table))
            }
            (None, true, false) => {
                self.links.insert(address, (header.links, 1));
                Ok(Object::Group(links::read(image, &header)?, None))
            }
            (None, false, true) => {
                self.links.insert(address, (header.links, 1));
                Ok(match dataset::read(image, &header, self.names, &mut self.types)? {
                    Ok(dataset) => {
                        self.contents.datasets.push(dataset);
                        Object::Dataset(self.contents.datasets.len() - 1)
                    }
                    Err(reason) => Object::Other(reason),
                })
            }
            (None, false, false) if header.has(DATATYPE) && !header.has(DATASPACE) => {
                if let Some(message) = header.get(DATATYPE).filter(|message| !message.shared) {
                    self.types.insert(address, Datatype::read(&mut message.block()?, message.padded)?);
                }
                Ok(named())
            }
            _ => Err(Fault::format(format!("the object at {address} is neither a group nor a dataset"))),
        }
    }

    /// An object knows how many links lead to it; if there are fewer, one was lost.
    fn check_links(&self, image: &Image<'_>) -> Outcome<()> {
        let mut wrong: Vec<_> = self.links.iter().filter(|(_, (links, found))| links != found).collect();
        wrong.sort_unstable();
        match wrong.first() {
            Some((address, (links, found))) => Err(image.fault(
                **address,
                &format!("{found} links lead to an object that has {links}: links are lost or damaged"),
            )),
            None => Ok(()),
        }
    }
}

/// Where no checksum tells it: an unused message that is a whole link or attribute has lost its type. HDF5 clears what it
/// deletes, and leaves it behind where it moves it to another place in the header.
fn check_unused(header: &Header) -> Outcome<()> {
    for Message { body, .. } in header.all(UNUSED).filter(|message| message.padded) {
        let is_whole =
            || links::link(body.clone(), true).is_ok() || attribute::attribute(body.clone(), true).is_ok();
        let was_moved = || {
            let others = header.messages.iter().filter(|other| matches!(other.kind, LINK | ATTRIBUTE));
            others.map(|other| other.body.rest()).any(|other| body.rest().starts_with(other))
        };
        if body.rest().first().is_some_and(|&byte| byte != 0) && is_whole() && !was_moved() {
            return Err(body.fault("a link or an attribute is marked as unused"));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Outcome<()> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(Fault::format(format!("a link has the name {name:?}")));
    }
    Ok(())
}

impl Contents {
    /// Every path to something that is not a group, in the order of names.
    pub(super) fn members(&self) -> Outcome<Vec<Member>> {
        let mut members = Vec::new();
        let mut paths = Paths::new(self.length);
        let mut steps = self.length.saturating_mul(64);
        let mut path = String::new();
        // The groups that the path leads through: address, next link, length of the path.
        let mut groups = vec![(self.root, 0, 0)];
        let mut above = HashSet::from([self.root]);
        while let Some((address, next, length)) = groups.last_mut() {
            path.truncate(*length);
            let Some(link) = self.links(*address).get(*next) else {
                above.remove(address);
                groups.pop();
                continue;
            };
            *next += 1;
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&link.name);
            paths.one_more(&path)?;
            let mut add = |dataset| members.push(Member { path: path.clone(), dataset });
            match self.resolve(*address, link, &mut steps)? {
                Err(reason) => add(Err(reason)),
                Ok(address) => match self.objects.get(&address) {
                    Some(Object::Group(..)) if above.insert(address) => {
                        groups.push((address, 0, path.len()));
                    }
                    Some(Object::Group(..)) => {
                        add(Err("is a link back to a group that it lies in".to_owned()));
                    }
                    Some(Object::Dataset(number)) => add(Ok(*number)),
                    Some(Object::Other(reason)) => add(Err(reason.clone())),
                    None => add(Err("is a link to nothing".to_owned())),
                },
            }
        }
        Ok(members)
    }

    fn links(&self, address: u64) -> &[Link] {
        match self.objects.get(&address) {
            Some(Object::Group(links, _)) => links,
            _ => &[],
        }
    }

    /// The object behind a link in the group at `group`; the inner error says why there is none.
    fn resolve(&self, group: u64, link: &Link, steps: &mut u64) -> Outcome<Result<u64, String>> {
        let mut here = group;
        // What is still to be followed, the next part last.
        let mut parts: Vec<&str> = Vec::new();
        let mut target = Some(&link.target);
        let mut soft = 0;
        loop {
            match target.take() {
                Some(Target::Hard(address, _)) => here = *address,
                Some(Target::External) => return Ok(Err("is a link into another file".to_owned())),
                Some(Target::Custom(kind)) => {
                    return Ok(Err(format!("is a link of the unknown type {kind}")));
                }
                Some(Target::Soft(path)) => {
                    soft += 1;
                    if soft > MAX_LINKS {
                        return Ok(Err(format!("is a link that leads through more than {MAX_LINKS} others")));
                    }
                    if path.starts_with('/') {
                        here = self.root;
                    }
                    parts.extend(path.rsplit('/').filter(|part| !matches!(*part, "" | ".")));
                    let taken = path.len() as u64 + 1;
                    *steps = steps
                        .checked_sub(taken)
                        .ok_or_else(|| Fault::format("soft links lead further than the file has room for"))?;
                }
                None => {}
            }
            let Some(part) = parts.pop() else { return Ok(Ok(here)) };
            let links = self.links(here);
            match links.binary_search_by(|link| link.name.as_str().cmp(part)) {
                Ok(found) => target = Some(&links[found].target),
                Err(_) => return Ok(Err("is a link to nothing".to_owned())),
            }
        }
    }
}
