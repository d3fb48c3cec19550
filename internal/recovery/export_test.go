package recovery

// Rehash makes a changed plan look like one that was made so.
func (p *Plan) Rehash() { p.Hash = p.hash() }
