"""How published files of tasks are read: downloads, pickles, VOC's XML, rows."""
