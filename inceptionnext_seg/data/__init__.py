"""Data sets: ADE20K, folders of images and masks, and the embedded drawn scenes."""
