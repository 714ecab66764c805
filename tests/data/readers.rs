//! Files of data, sound and damaged.

use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use layerfn::data::{Dataset, ImageFolder, read_csv, read_idx, read_idx_from, read_npy, read_npz};
use layerfn::prelude::*;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn idx(kind: u8, shape: &[u32], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, shape.len() as u8];
    bytes.extend(shape.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(body);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn idx_error(bytes: &[u8]) -> String {
    read_idx_from("digits", bytes).unwrap_err().to_string()
}

#[test]
fn idx_files_of_every_type_are_read() {
    let bytes = read_idx_from("x", &idx(8, &[2, 3], &[0, 1, 2, 253, 254, 255])[..]).unwrap();
    assert_eq!(bytes.to_vec2::<u8>().unwrap(), [[0, 1, 2], [253, 254, 255]]);
    let signed = read_idx_from("x", &idx(9, &[2], &[255, 1])[..]).unwrap();
    assert_eq!(signed.to_vec1::<i64>().unwrap(), [-1, 1]);
    let short = read_idx_from("x", &idx(11, &[2], &[0xff, 0xfe, 1, 0])[..]).unwrap();
    assert_eq!(short.to_vec1::<i64>().unwrap(), [-2, 256]);
    let int = read_idx_from("x", &idx(12, &[1], &[0, 0, 1, 2])[..]).unwrap();
    assert_eq!(int.to_vec1::<i64>().unwrap(), [258]);
    let float = read_idx_from("x", &idx(13, &[1], &1.5f32.to_be_bytes())[..]).unwrap();
    assert_eq!(float.to_vec1::<f32>().unwrap(), [1.5]);
    let double = read_idx_from("x", &idx(14, &[1], &(-2.5f64).to_be_bytes())[..]).unwrap();
    assert_eq!(double.to_vec1::<f64>().unwrap(), [-2.5]);
}

#[test]
fn idx_files_may_be_compressed_whatever_their_name() {
    let folder = Folder::new();
    let whole = idx(8, &[3], &[4, 5, 6]);
    let plain = folder.file("a-idx1-ubyte", &whole);
    folder.file("b-idx1-ubyte.gz", gzip(&whole));
    let unpacked = folder.file("c-idx1-ubyte.gz", &whole);
    for path in [plain, folder.0.path().join("b-idx1-ubyte"), unpacked] {
        assert_eq!(read_idx(path).unwrap().to_vec1::<u8>().unwrap(), [4, 5, 6]);
    }
    let error = read_idx(folder.0.path().join("none")).unwrap_err().to_string();
    assert!(error.ends_with("neither it nor a file with `.gz` at its end exists"), "{error}");
}

#[test]
fn damaged_idx_files_are_refused() {
    let whole = idx(8, &[2, 3], &[0; 6]);
    assert_eq!(idx_error(&whole[..17]), "`digits`: ends after 17 bytes, but its shape [2, 3] needs 18");
    assert_eq!(idx_error(&whole[..9]), "`digits`: ends after 9 bytes, within its header");
    assert_eq!(idx_error(&[]), "`digits`: ends after 0 bytes, within its header");
    let long = [&whole[..], &[0]].concat();
    assert_eq!(idx_error(&long), "`digits`: goes on after the 18 bytes that its shape [2, 3] needs");
    assert_eq!(
        idx_error(b"<!DOCTYPE html>"),
        "`digits`: starts with 0x3c21444f, which is not the start of an IDX file"
    );
    assert_eq!(idx_error(&idx(7, &[1], &[0])), "`digits`: has numbers of the unknown type 0x07");
    assert!(idx_error(&idx(8, &[u32::MAX; 8], &[0])).contains("more elements than can be counted"));
    assert!(idx_error(&idx(14, &[u32::MAX; 1], &[0])).starts_with("`digits`: ends after"));
    let packed = gzip(&whole);
    assert!(idx_error(&packed[..packed.len() - 5]).contains("damaged gzip data"));
    let mut wrong = packed.clone();
    let sum = wrong.len() - 7;
    wrong[sum] ^= 1;
    assert!(idx_error(&wrong).contains("damaged gzip data"));
}

#[test]
fn tables_have_numbers_vectors_and_classes() {
    let folder = Folder::new();
    let path = folder
        .file("t.csv", "x__0:pixel,x__1:pixel,kind,n\n1, 2.5,cat,-3\n\"3\",4e2,\"dog, wet\",0\n0,0,cat,1\n");
    let table = read_csv(&path).unwrap();
    assert_eq!(table.names(), ["x__0:pixel", "x__1:pixel", "kind", "n"]);
    let x = table.vector("x").unwrap();
    assert_eq!(x.to_vec2::<f32>().unwrap(), [[1., 2.5], [3., 400.], [0., 0.]]);
    assert_eq!(table.numbers(&["n"]).unwrap().to_vec2::<f32>().unwrap(), [[-3.], [0.], [1.]]);
    let (kinds, names) = table.classes("kind").unwrap();
    assert_eq!(
        (kinds.to_vec1::<u32>().unwrap(), names),
        (vec![0, 1, 0], vec!["cat".into(), "dog, wet".into()])
    );
    let text = |error: Error| error.to_string().replace(path.to_str().unwrap(), "t.csv");
    let wrong = table.numbers(&["n", "kind"]).unwrap_err();
    assert_eq!(text(wrong), "`t.csv`: line 2: `cat` in the column `kind` is not a number");
    assert_eq!(text(table.classes("knd").unwrap_err()), "`t.csv`: has no column `knd`; did you mean `kind`?");
    assert_eq!(text(table.vector("y").unwrap_err()), "`t.csv`: has no column `y__0`");
    let ragged = read_csv(folder.file("r.csv", "a,b\n1,2\n3\n")).unwrap_err().to_string();
    assert!(ragged.contains("line: 3") && ragged.contains("2 fields"), "{ragged}");
    let twice = read_csv(folder.file("d.csv", "a,a\n1,2\n")).unwrap_err().to_string();
    assert!(twice.ends_with("has two columns `a`"), "{twice}");
    assert!(matches!(read_csv(folder.0.path().join("no.csv")).unwrap_err(), Error::Io { .. }));
}

#[test]
fn arrays_of_numpy_are_read() {
    let folder = Folder::new();
    let mut npy = b"\x93NUMPY\x01\x00\x46\x00".to_vec();
    let header = format!("{:<69}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }");
    npy.extend(header.as_bytes());
    npy.extend([1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()));
    let path = folder.file("a.npy", &npy);
    assert_eq!(read_npy(&path).unwrap().to_vec1::<f32>().unwrap(), [1.5, -2.0]);
    let error = read_npy(folder.file("b.npy", &npy[..npy.len() - 1])).unwrap_err().to_string();
    assert!(error.contains("b.npy`: "), "{error}");
    let error = read_npy(folder.file("c.npy", [&npy[..], &[0]].concat())).unwrap_err().to_string();
    assert!(error.contains("1 bytes too many"), "{error}");

    let store = layerfn::ParameterStore::new();
    store.enter(|| layerfn::get_parameter_or_create("images").shape((2, 3)).call()).unwrap();
    store.enter(|| layerfn::get_parameter_or_create("labels").shape(2).call()).unwrap();
    let path = folder.0.path().join("d.npz");
    store.save_parameters(&path).unwrap();
    let arrays = read_npz(&path, &["labels", "images"]).unwrap();
    assert_eq!((arrays[0].dims(), arrays[1].dims()), (&[2][..], &[2, 3][..]));
    let error = read_npz(&path, &["lables"]).unwrap_err().to_string();
    assert!(error.ends_with("has no array `lables`, only images, labels; did you mean `labels`?"), "{error}");
}

#[test]
fn folders_of_images_are_classes() {
    let folder = Folder::new();
    for (name, side, color) in
        [("b/1.png", 4, [255, 0, 0]), ("a/2.png", 4, [0, 255, 0]), ("a/10.bmp", 8, [0, 0, 255])]
    {
        let path = folder.file(name, "");
        image::RgbImage::from_pixel(side, side, image::Rgb(color)).save(path).unwrap();
    }
    folder.file("a/notes.txt", "no image");
    folder.file("readme.md", "in no class");
    let images = ImageFolder::open(folder.0.path()).unwrap().size(4, 4);
    assert_eq!((images.len(), images.classes()), (3, &["a".to_owned(), "b".to_owned()][..]));
    let batch = images.batch(&[0, 1, 2]).unwrap();
    assert_eq!((batch[0].dims(), batch[0].dtype()), (&[3, 3, 4, 4][..], DType::U8));
    assert_eq!(batch[1].to_vec1::<u32>().unwrap(), [0, 0, 1]);
    // The order is that of the names as text: 10.bmp before 2.png.
    let corner = |n: usize| batch[0].get(n).unwrap().flatten_from(1).unwrap().to_vec2::<u8>().unwrap();
    assert_eq!(corner(0).iter().map(|channel| channel[0]).collect::<Vec<_>>(), [0, 0, 255]);
    assert_eq!(corner(2).iter().map(|channel| channel[0]).collect::<Vec<_>>(), [255, 0, 0]);
    let gray = ImageFolder::open(folder.0.path()).unwrap().size(2, 2).gray().example(1).unwrap();
    assert_eq!(gray[0].dims(), [1, 2, 2]);
    let ragged = ImageFolder::open(folder.0.path()).unwrap().batch(&[0, 1]).unwrap_err().to_string();
    assert!(ragged.contains("shape"), "{ragged}");
    let broken = folder.file("a/0.png", "not a picture");
    let error = ImageFolder::open(folder.0.path()).unwrap().example(0).unwrap_err().to_string();
    assert!(error.starts_with(&format!("`{}`: ", broken.display())), "{error}");
    let empty = Folder::new();
    let error = ImageFolder::open(empty.0.path()).unwrap_err().to_string();
    assert!(error.ends_with("has no images in subfolders, such as `cat/1.png`"), "{error}");
}
