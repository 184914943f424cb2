"""What a chapter needs beside its notebook: experiment, tables, study."""
