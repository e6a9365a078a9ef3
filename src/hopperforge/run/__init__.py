"""The only code that talks to the operating system: processes, files, locks, downloads, the machine."""
