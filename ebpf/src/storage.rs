//! Socket storage (`BPF_MAP_TYPE_SK_STORAGE`, Linux 5.2; in sockops 5.11) of endpoints.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};
use warren_common::abi::Endpoint;

/// The storage could not be allocated (out of memory, or `net.core.optmem_max` of the socket is used up).
pub(crate) struct Full;

#[inline(always)]
fn pointer(map: &SkStorage<Endpoint>) -> *mut core::ffi::c_void {
    core::ptr::from_ref(map).cast_mut().cast()
}

/// The endpoint stored on a socket.
#[inline(always)]
pub(crate) fn get(map: &SkStorage<Endpoint>, sk: *mut bpf_sock) -> Option<Endpoint> {
    // SAFETY: `map` is relocated to a socket storage map with `Endpoint` values and `sk` comes from a context.
    let value = unsafe { bpf_sk_storage_get(pointer(map), sk.cast(), core::ptr::null_mut(), 0) };
    if value.is_null() {
        return None;
    }
    // SAFETY: a non-null answer is a valid value of the map while the program runs.
    Some(unsafe { *value.cast::<Endpoint>() })
}

/// Stores an endpoint on a socket, over whatever stood there.
#[inline(always)]
pub(crate) fn set(map: &SkStorage<Endpoint>, sk: *mut bpf_sock, endpoint: &Endpoint) -> Result<(), Full> {
    let mut initial = *endpoint;
    // SAFETY: as in `get`; `initial` outlives the call.
    let value = unsafe {
        bpf_sk_storage_get(
            pointer(map),
            sk.cast(),
            (&raw mut initial).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    if value.is_null() {
        return Err(Full);
    }
    // The initial value is taken only when the storage is new.
    // SAFETY: a non-null answer is a valid value of the map while the program runs.
    unsafe { *value.cast::<Endpoint>() = *endpoint };
    Ok(())
}

/// Removes what is stored on a socket, if anything is.
#[inline(always)]
pub(crate) fn delete(map: &SkStorage<Endpoint>, sk: *mut bpf_sock) {
    // SAFETY: as in `get`.
    let _ = unsafe { bpf_sk_storage_delete(pointer(map), sk.cast()) };
}
