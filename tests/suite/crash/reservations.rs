//! Locks behind a power cut: nobody who held one lives, so none may be left held; and no number of a grant comes twice.
