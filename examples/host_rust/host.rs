// A Rust program whose guest gets the memory of Rust's global allocator, by way of
// `std::alloc`.  No crates: the table is declared here as alloc.h has it.
// arguments: the guest's script.

use std::alloc::{alloc, alloc_zeroed, dealloc, realloc, Layout};
use std::ffi::{c_char, c_int, c_void, CString};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[repr(C)]
struct Table {
    abi: u32,
    struct_size: u32,
    capabilities: u64,
    name: *const c_char,
    ctx: *mut c_void,
    alloc: extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    alloc_zeroed: extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    resize: extern "C" fn(*mut c_void, *mut c_void, usize, usize, usize) -> c_int,
    realloc: extern "C" fn(*mut c_void, *mut c_void, usize, usize, usize) -> *mut c_void,
    dealloc: extern "C" fn(*mut c_void, *mut c_void, usize, usize),
    usable_size: extern "C" fn(*mut c_void, *const c_void) -> usize,
    owns: extern "C" fn(*mut c_void, *const c_void) -> c_int,
}

#[repr(C)]
struct Host {
    abi: u32,
    struct_size: u32,
    table: *const Table,
    flags: u64,
}

unsafe impl Sync for Table {}
unsafe impl Sync for Host {}

extern "C" {
    fn Py_Initialize();
    fn Py_FinalizeEx() -> c_int;
    fn PyRun_SimpleString(code: *const c_char) -> c_int;
}

// --- the table: std::alloc, counted -----------------------------------------------------

static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static GRANTED: AtomicUsize = AtomicUsize::new(0);

/// A `Layout` keeps no size that a raw pointer could be asked for, so usable_size needs
/// it in front of the block.
fn front(align: usize) -> usize {
    align.max(16)
}

fn layout(size: usize, align: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(front(align))?, front(align)).ok()
}

unsafe fn granted(base: *mut u8, size: usize, align: usize) -> *mut c_void {
    if base.is_null() {
        return std::ptr::null_mut();
    }
    let block = base.add(front(align));
    (block as *mut usize).sub(1).write(size);
    BLOCKS.fetch_add(1, Relaxed);
    GRANTED.fetch_add(1, Relaxed);
    BYTES.fetch_add(size, Relaxed);
    block as *mut c_void
}

extern "C" fn table_alloc(_: *mut c_void, size: usize, align: usize) -> *mut c_void {
    match layout(size, align) {
        Some(layout) => unsafe { granted(alloc(layout), size, align) },
        None => std::ptr::null_mut(),
    }
}

extern "C" fn table_alloc_zeroed(_: *mut c_void, size: usize, align: usize) -> *mut c_void {
    match layout(size, align) {
        Some(layout) => unsafe { granted(alloc_zeroed(layout), size, align) },
        None => std::ptr::null_mut(),
    }
}

extern "C" fn table_resize(
    _: *mut c_void, _: *mut c_void, size: usize, _: usize, new_size: usize,
) -> c_int {
    (size == new_size) as c_int
}

extern "C" fn table_realloc(
    _: *mut c_void, block: *mut c_void, size: usize, align: usize, new_size: usize,
) -> *mut c_void {
    let (Some(old), Some(new)) = (layout(size, align), layout(new_size, align)) else {
        return std::ptr::null_mut();
    };
    unsafe {
        let base = realloc((block as *mut u8).sub(front(align)), old, new.size());
        if base.is_null() {
            return std::ptr::null_mut();
        }
        BLOCKS.fetch_sub(1, Relaxed);
        BYTES.fetch_sub(size, Relaxed);
        granted(base, new_size, align)
    }
}

extern "C" fn table_dealloc(_: *mut c_void, block: *mut c_void, size: usize, align: usize) {
    if let Some(layout) = layout(size, align) {
        unsafe { dealloc((block as *mut u8).sub(front(align)), layout) };
        BLOCKS.fetch_sub(1, Relaxed);
        BYTES.fetch_sub(size, Relaxed);
    }
}

extern "C" fn table_usable_size(_: *mut c_void, block: *const c_void) -> usize {
    unsafe { (block as *const usize).sub(1).read() }
}

extern "C" fn table_owns(_: *mut c_void, _: *const c_void) -> c_int {
    1 // std::alloc cannot tell, and no capability says that it can
}

static TABLE: Table = Table {
    abi: 1,
    struct_size: std::mem::size_of::<Table>() as u32,
    capabilities: 0,
    name: b"rust\0".as_ptr() as *const c_char,
    ctx: std::ptr::null_mut(),
    alloc: table_alloc,
    alloc_zeroed: table_alloc_zeroed,
    resize: table_resize,
    realloc: table_realloc,
    dealloc: table_dealloc,
    usable_size: table_usable_size,
    owns: table_owns,
};

static HOST: Host = Host {
    abi: 1,
    struct_size: std::mem::size_of::<Host>() as u32,
    table: &TABLE,
    flags: 0,
};

fn tell(when: &str) {
    println!(
        "host: {:22} {:6} blocks, {:9} bytes held, {:6} granted",
        when, BLOCKS.load(Relaxed), BYTES.load(Relaxed), GRANTED.load(Relaxed)
    );
}

fn main() {
    let script = std::env::args().nth(1).expect("usage: host guest.py");
    let code = CString::new(std::fs::read_to_string(script).unwrap()).unwrap();
    // The place that needs nothing of the C API: the address, as an int.
    let register = format!("import sys; sys._alloc_host = {}", &HOST as *const Host as usize);
    let register = CString::new(register).unwrap();
    unsafe {
        Py_Initialize();
        tell("before the guest");
        assert_eq!(PyRun_SimpleString(register.as_ptr()), 0);
        let failed = PyRun_SimpleString(code.as_ptr());
        tell("after the guest");
        assert_eq!((failed, Py_FinalizeEx()), (0, 0));
    }
    tell("after finalization");
    assert!(GRANTED.load(Relaxed) > 0 && BLOCKS.load(Relaxed) == 0 && BYTES.load(Relaxed) == 0);
}
