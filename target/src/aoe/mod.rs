//! Shelves and slots: which volume a frame means, what may be answered, config string, mask, reservation.
