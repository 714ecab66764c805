use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use layerfn::Rng;
use tempfile::TempDir;

use super::*;

fn images_file(count: u32, rows: u32, columns: u32, pixels: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = [2051, count, rows, columns].into_iter().flat_map(u32::to_be_bytes).collect();
    bytes.extend((0..pixels).map(|i| (i % 251) as u8));
    bytes
}

fn labels_file(labels: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [2049, labels.len() as u32].into_iter().flat_map(u32::to_be_bytes).collect();
    bytes.extend(labels);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(images: &[u8], labels: &[u8]) -> Result<Digits, DataError> {
    Digits::read(IdxFile::new("images", images)?, IdxFile::new("labels", labels)?)
}

/// The text of the error that reading two digits gives with these images.
fn images_error(images: &[u8]) -> String {
    read(images, &labels_file(&[3, 7])).unwrap_err().to_string()
}

fn labels_error(labels: &[u8]) -> String {
    read(&images_file(2, 28, 28, 2 * 784), labels).unwrap_err().to_string()
}

fn good_images() -> Vec<u8> {
    images_file(2, 28, 28, 2 * 784)
}

#[test]
fn built_in_digits_are_the_test_part_of_mnist() {
    let mnist = Mnist::built_in().unwrap();
    assert_eq!((mnist.train.len(), mnist.test.len()), (8_000, 2_000));
    let first: Vec<u8> = (0..10).map(|i| mnist.train.label(i)).collect();
    assert_eq!(first, [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    let last: Vec<u8> = (1994..2000).map(|i| mnist.test.label(i)).collect();
    assert_eq!(last, [1, 2, 3, 4, 5, 6]);
    let ink: u64 = [&mnist.train, &mnist.test].iter().flat_map(|d| &d.pixels).map(|&p| u64::from(p)).sum();
    assert_eq!(ink, 264_923_200);
}

#[test]
fn plain_and_compressed_files_give_the_same_digits() {
    let (images, labels) = (good_images(), labels_file(&[3, 7]));
    let plain = read(&images, &labels).unwrap();
    let compressed = read(&gzip(&images), &gzip(&labels)).unwrap();
    assert_eq!((plain.len(), plain.label(1), plain.image(1)[0]), (2, 7, (784 % 251) as u8));
    assert_eq!((plain.pixels, plain.labels), (compressed.pixels, compressed.labels));
}

#[test]
fn a_directory_is_read_whatever_the_names_say_of_compression() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("train-images-idx3-ubyte", &images_file(3, 28, 28, 3 * 784));
    write("train-labels-idx1-ubyte.gz", &gzip(&labels_file(&[0, 1, 2])));
    write("t10k-images-idx3-ubyte.gz", &good_images()); // unpacked by a browser
    let error = Mnist::from_dir(dir.path()).unwrap_err().to_string();
    let shown = dir.path().display();
    assert_eq!(
        error,
        format!("`{shown}` holds neither `t10k-labels-idx1-ubyte` nor `t10k-labels-idx1-ubyte.gz`")
    );
    write("t10k-labels-idx1-ubyte", &gzip(&labels_file(&[8, 9])));
    let mnist = Mnist::from_dir(dir.path()).unwrap();
    assert_eq!((mnist.train.len(), mnist.test.len(), mnist.test.label(1)), (3, 2, 9));
}

#[test]
fn a_missing_directory_is_named() {
    let error = Mnist::from_dir(Path::new("no/such/place")).unwrap_err().to_string();
    assert_eq!(
        error,
        "`no/such/place` is not a directory; it should hold the four files of MNIST, such as `train-images-idx3-ubyte.gz`"
    );
}

#[test]
fn a_directory_in_place_of_a_file_is_an_error() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("train-images-idx3-ubyte")).unwrap();
    let error = Mnist::from_dir(dir.path()).unwrap_err();
    assert!(matches!(error, DataError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("train-images-idx3-ubyte"), "{error}");
}

#[test]
fn wrong_magic_numbers_are_shown() {
    assert_eq!(
        images_error(&labels_file(&[3, 7])),
        "`images`: starts with 0x00000801, a file of images starts with 0x00000803; it holds labels"
    );
    assert_eq!(
        labels_error(&good_images()),
        "`labels`: starts with 0x00000803, a file of labels starts with 0x00000801; it holds images"
    );
    assert_eq!(
        images_error(b"<!DOCTYPE html>"),
        "`images`: starts with 0x3c21444f, a file of images starts with 0x00000803"
    );
}

#[test]
fn short_files_are_refused() {
    let whole = good_images();
    assert_eq!(
        images_error(&whole[..whole.len() - 1]),
        "`images`: ends after 1583 bytes, expected 1584 for the 2 images its header announces"
    );
    assert_eq!(
        images_error(&whole[..9]),
        "`images`: ends after 9 bytes, expected 16 for its header at least"
    );
    assert_eq!(images_error(&[]), "`images`: ends after 0 bytes, expected 16 for its header at least");
    assert_eq!(
        labels_error(&labels_file(&[3, 7])[..9]),
        "`labels`: ends after 9 bytes, expected 10 for the 2 labels its header announces"
    );
}

#[test]
fn long_files_are_refused() {
    let mut images = good_images();
    images.push(0);
    assert_eq!(
        images_error(&images),
        "`images`: goes on after the expected 1584 bytes for the 2 images its header announces"
    );
}

#[test]
fn impossible_counts_take_no_memory() {
    assert_eq!(
        images_error(&images_file(u32::MAX, 28, 28, 784)),
        "`images`: its header announces 4294967295 images, expected 1 to 1000000"
    );
    assert_eq!(
        images_error(&images_file(0, 28, 28, 0)),
        "`images`: its header announces 0 images, expected 1 to 1000000"
    );
}

#[test]
fn images_of_another_size_are_refused() {
    assert_eq!(
        images_error(&images_file(2, 32, 28, 2 * 32 * 28)),
        "`images`: images of 32 × 28 pixels, expected 28 × 28"
    );
}

#[test]
fn labels_above_nine_are_refused() {
    assert_eq!(labels_error(&labels_file(&[3, 10])), "`labels`: label number 1 is 10, expected 0 to 9");
}

#[test]
fn images_and_labels_must_be_as_many() {
    assert_eq!(
        labels_error(&labels_file(&[3, 7, 1])),
        "`images` holds 2 images, but `labels` holds 3 labels; expected one label an image"
    );
}

#[test]
fn damaged_gzip_data_is_refused() {
    let whole = gzip(&good_images());
    let text = images_error(&whole[..whole.len() / 2]);
    assert!(text.starts_with("`images`: damaged gzip data ("), "{text}");
    // The last eight bytes are the check sum and the length: both are looked at.
    for byte in whole.len() - 8..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x10;
        let text = images_error(&damaged);
        assert!(text.starts_with("`images`: damaged gzip data ("), "byte {byte}: {text}");
    }
}

#[test]
fn no_damage_panics_and_none_to_the_data_goes_unseen() {
    let (images, labels) = (gzip(&good_images()), labels_file(&[3, 7]));
    let good = read(&images, &labels).unwrap();
    for bit in 0..images.len() * 8 {
        let mut damaged = images.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // A flipped bit of the header may say nothing about the data.
        if let Ok(digits) = read(&damaged, &labels) {
            assert_eq!(digits.pixels, good.pixels, "bit {bit}");
        }
    }
    for length in 0..images.len() {
        assert!(read(&images[..length], &labels).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn shifting_moves_ink_and_brings_in_paper() {
    let mut image = vec![0; 784];
    image[0] = 9; // top left
    image[27 * 28 + 27] = 5; // bottom right
    let moved = shifted(&image, 2, -1);
    assert_eq!(moved.iter().filter(|&&pixel| pixel != 0).count(), 0);
    let moved = shifted(&image, 2, 1);
    assert_eq!(moved[2 * 28 + 1], 9);
    assert_eq!(moved.iter().filter(|&&pixel| pixel != 0).count(), 1);
    assert_eq!(shifted(&image, 0, 0), image);
}

#[test]
fn a_shuffled_pass_sees_every_digit_once_and_follows_the_seed() {
    let digits = Digits { pixels: vec![0; 10 * 784], labels: (0..10).collect() };
    let pass = |seed| -> Vec<u32> {
        let rng = Rng::new(seed);
        let batches = Batches::shuffled(&digits, 4, 2, &rng);
        assert_eq!(batches.len(), 3);
        batches.flat_map(|batch| batch.unwrap().labels.to_vec1::<u32>().unwrap()).collect()
    };
    let (one, two) = (pass(1), pass(2));
    assert_ne!(one, two);
    assert_eq!(one, pass(1));
    let mut sorted = one;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10).collect::<Vec<_>>());
}

#[test]
fn batches_in_order_scale_ink_to_one() {
    let mnist = Mnist::built_in().unwrap();
    let digits = mnist.test.first(5);
    let batches: Vec<Batch> = Batches::in_order(&digits, 2).map(|batch| batch.unwrap()).collect();
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.images.dim(0).unwrap()).collect();
    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(batches[0].images.dims(), [2, 1, 28, 28]);
    let most = batches[0].images.max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(most > 0.95 && most <= 1.0, "{most}");
}
