package config

import _ "embed" // for example.yaml

//go:embed example.yaml
var example string

// Example returns the commented lifeboat.yaml that `lifeboat init` writes: it parses, and all that it sets is honoured by
// this version.
func Example() string { return example }
